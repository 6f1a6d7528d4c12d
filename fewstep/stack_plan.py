"""What a new local stack will be: its ports, its secrets, and which parts are given already."""

import os
import secrets
import socket
from pathlib import Path
from urllib.parse import urlsplit

import fewstep
from fewstep.local_ray import free_ports, make_ray_folder, ray_variables
from fewstep.processes import STACK_VARIABLE
from fewstep.stack_state import StackState, boot_id
from jobs.errors import BadConfiguration
from jobs.settings import Settings, s3_secrets

#: Where the API listens when nobody else does and nothing else was asked for.
API_PORT = 8700
_LOOPBACK = ("127.0.0.1", "localhost")


def plan_stack(
    home: Path, settings: Settings, renderers: int, *, private: bool, parts: tuple[str, ...]
) -> StackState:
    """A stack with fresh ports and secrets; parts that variables name are not embedded.

    A `private` one takes a free port for its API, whatever the variables say.
    """
    given = _given(settings)
    redis_port, s3_port, ray_port, free = free_ports(4)
    folder = make_ray_folder(home)
    endpoint, access, secret = (
        _given_store(settings) if "s3" in given else _own_store(settings, s3_port)
    )
    return StackState(
        id=secrets.token_hex(8),
        boot=boot_id(),
        renderers=renderers,
        redis_url=settings.redis_url.get_secret_value()
        if "redis" in given
        else f"redis://:{secrets.token_hex(24)}@127.0.0.1:{redis_port}/0",
        s3_endpoint=endpoint,
        s3_access_key=access,
        s3_secret_key=secret,
        s3_region=settings.s3_region,
        s3_bucket=settings.s3_bucket,
        api_url=f"http://127.0.0.1:{free if private else _api_port(settings, free)}",
        ray_address=settings.ray_address if "ray" in given else f"127.0.0.1:{ray_port}",
        ray_folder=str(folder),
        embedded=tuple(name for name in parts if name not in given),
        given=tuple(name for name in parts if name in given),
    )


def stack_variables(state: StackState, settings: Settings) -> dict[str, str]:
    """The whole environment of a stack's processes."""
    ours = {
        STACK_VARIABLE: state.id,
        "FEWSTEP_HOME": str(settings.home),
        "FEWSTEP_REDIS_URL": state.redis_url,
        "FEWSTEP_S3_ENDPOINT": state.s3_endpoint,
        "FEWSTEP_S3_REGION": state.s3_region,
        "FEWSTEP_S3_BUCKET": state.s3_bucket,
        "FEWSTEP_S3_ACCESS_KEY": state.s3_access_key,
        "FEWSTEP_S3_SECRET_KEY": state.s3_secret_key,
        "FEWSTEP_API_URL": state.api_url,
        "FEWSTEP_RAY_ADDRESS": state.ray_address,
        # It serves its owner on loopback.
        "FEWSTEP_KEYS": "off",
        "FEWSTEP_MAX_RENDERERS": str(state.renderers),
        "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": _python_path(),
    }
    if settings.catalog is not None:
        ours["FEWSTEP_CATALOG"] = str(settings.catalog)
    if not settings.hub_access:
        ours["HF_HUB_OFFLINE"] = "1"
    ray = ray_variables(Path(state.ray_folder)) if "ray" in state.embedded else {}
    set_here = {name: value for name, value in ours.items() if value is not None}
    return dict(os.environ) | set_here | ray


def port_of(address: str) -> int:
    """The port of an address or URL of ours."""
    port = urlsplit(address if "://" in address else f"//{address}").port
    if port is None:
        raise BadConfiguration("the address has no port", where=address, remedy="add :PORT")
    return port


def _given(settings: Settings) -> set[str]:
    named = settings.model_fields_set
    return {
        name
        for name, is_given in (
            ("redis", "redis_url" in named),
            ("s3", settings.s3_endpoint is not None),
            ("ray", "ray_address" in named and settings.ray_address != "auto"),
        )
        if is_given
    }


def _given_store(settings: Settings) -> tuple[str | None, str | None, str | None]:
    return settings.s3_endpoint, *s3_secrets(settings)


def _own_store(settings: Settings, port: int) -> tuple[str, str, str]:
    return (
        f"http://127.0.0.1:{port}",
        f"fewstep{secrets.token_hex(6)}",
        secrets.token_hex(24),
    )


def _api_port(settings: Settings, free: int) -> int:
    if "api_url" not in settings.model_fields_set:
        return API_PORT if _is_free(API_PORT) else free
    if urlsplit(settings.api_url).hostname not in _LOOPBACK:
        raise BadConfiguration(
            "a local stack serves this machine alone",
            where="FEWSTEP_API_URL",
            remedy="leave it out, or give http://127.0.0.1:PORT",
        )
    return port_of(settings.api_url)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _python_path() -> str:
    """Where our packages lie, before what the user set: also in a checkout not installed."""
    root = str(Path(fewstep.__file__).parent.parent)
    there = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(part for part in (root, there) if part)
