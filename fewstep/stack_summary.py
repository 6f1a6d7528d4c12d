"""What there is to say about a stack, as plain values for people and programs."""

from typing import Any

from fewstep.components import log_of
from fewstep.configuration import current_settings, read_settings
from fewstep.local import Stack
from fewstep.stack_state import COMPONENTS, load_state
from jobs.client import Client
from jobs.errors import FewstepError


def addresses(stack: Stack) -> dict[str, Any]:
    """How programs reach it. Holds secrets: for its owner's eyes alone."""
    state = stack.state
    return {
        "url": state.api_url,
        "store": state.s3_endpoint,
        "bucket": state.s3_bucket,
        "access_key": state.s3_access_key,
        "secret_key": state.s3_secret_key,
        "redis": state.redis_url,
        "ray": state.ray_address,
        "renderers": state.renderers,
        "home": str(stack.home),
    }


def status_now() -> dict[str, Any]:
    """Components with their processes, and what the API knows; `ok` if all of it is well."""
    home = read_settings().home
    state = load_state(home)
    settings = current_settings()
    components = [] if state is None else _components(Stack(home, state))
    problem, cluster = None, None
    try:
        with Client(settings.api_url, timeout_s=5.0) as client:
            client.health()
            cluster = client.cluster()
    except FewstepError as error:
        problem = str(error)
    alive = all(part["alive"] for part in components)
    return {
        "ok": alive and problem is None,
        "url": settings.api_url,
        "home": str(home),
        "components": components,
        "cluster": cluster,
        "problem": problem,
    }


def _components(stack: Stack) -> list[dict[str, Any]]:
    state = stack.state
    found = [name for name in COMPONENTS if name in (*state.embedded, *state.given)]
    return [_component(stack, name) for name in found]


def _component(stack: Stack, name: str) -> dict[str, Any]:
    state = stack.state
    if name not in state.embedded:
        return {"name": name, "embedded": False, "alive": True, "pid": None, "log": None}
    mark = state.processes.get(name)
    return {
        "name": name,
        "embedded": True,
        "alive": state.alive(name),
        "pid": mark.pid if mark else None,
        "log": str(log_of(stack.home, name)),
    }
