"""The checks of `fewstep doctor`: this machine, its packages, and every server it needs."""

from collections.abc import Callable, Iterator

from fewstep.configuration import current_settings, read_settings
from fewstep.doctor_jobs import queue_found
from fewstep.doctor_machine import devices_found, disk_found, python_found
from fewstep.doctor_ray import ray_found
from fewstep.doctor_servers import redis_found, store_found
from fewstep.findings import Finding, fault
from fewstep.stack_state import load_state
from jobs.catalog import load_catalog
from jobs.client import Client
from jobs.errors import FewstepError
from jobs.recipe import Weights
from jobs.settings import Settings
from workers.s3_weights import in_s3
from workers.weights import locate


def examine() -> list[Finding]:
    """All findings, in the order in which things depend on each other. Raises nothing of ours."""
    found = [*python_found(), *devices_found()]
    try:
        settings = current_settings()
    except FewstepError as error:
        return [*found, fault("settings", error)]
    found += disk_found(read_settings().home)
    for name, check in _SERVERS.items():
        try:
            # One by one: what was found before a fault is kept.
            for finding in check(settings):
                found.append(finding)
        except FewstepError as error:
            found.append(fault(name, error))
    return found


def _stack(settings: Settings) -> Iterator[Finding]:
    state = load_state(settings.home)
    if state is None:
        yield Finding("stack", "ok", "no local stack is up here")
        return
    for name in state.dead:
        yield Finding(name, "fail", "its process is dead", "run `fewstep up`")
    if not state.dead:
        yield Finding("stack", "ok", f"all of {', '.join(state.embedded)} run")


def _api(settings: Settings) -> Iterator[Finding]:
    with Client(settings.api_url, timeout_s=5.0) as client:
        client.health()
    yield Finding("api", "ok", settings.api_url)


def _models(settings: Settings) -> Iterator[Finding]:
    catalog = load_catalog(settings.catalog)
    tables = (
        ("model", catalog.models),
        ("vae", catalog.vaes),
        ("accelerator", catalog.accelerators),
        ("style", catalog.styles),
        ("filter", {name: one for name, one in catalog.filters.items() if one.source}),
    )
    for kind, entries in tables:
        for name, entry in entries.items():
            yield _weights(f"{kind} {name}", entry.weights, settings)


def _weights(name: str, weights: Weights, settings: Settings) -> Finding:
    try:
        if weights.source.startswith("s3://"):
            found = in_s3(weights, settings)
            size = sum(one.bytes for one in found) / 1e9
            return Finding(name, "ok", f"{len(found)} objects, {size:.2f} GB, in {weights.source}")
        folder = locate(weights)
    except FewstepError as error:
        if not weights.source.startswith("hub:"):
            return fault(name, error)
        if settings.hub_access:
            return Finding(name, "ok", f"{weights.source} will be fetched when it is first used")
        remedy = "set FEWSTEP_HUB_ACCESS=true, or list a folder of yours in FEWSTEP_CATALOG"
        return Finding(name, "warn", f"{weights.source} is not on this machine", remedy)
    return Finding(name, "ok", str(folder))


_SERVERS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "stack": _stack,
    "redis": redis_found,
    "store": store_found,
    "queue": queue_found,
    "ray": ray_found,
    "api": _api,
    "models": _models,
}
