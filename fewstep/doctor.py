"""The checks of `fewstep doctor`: this machine, its packages, and every server it needs."""

import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from fewstep.configuration import current_settings, read_settings
from fewstep.devices import cores, free_memory, gpus
from fewstep.findings import Finding
from fewstep.stack_state import load_state
from jobs.catalog import load_catalog
from jobs.client import Client
from jobs.errors import FewstepError
from jobs.recipe import Weights
from jobs.redis_client import address, check_server, explained, heartbeat_client
from jobs.settings import Settings
from jobs.store import Store
from workers.weights import locate

#: Below the first a job of pictures soon stops, below the second at once.
LITTLE_DISK, NO_DISK = 5_000_000_000, 500_000_000
#: A local stack with one renderer takes about as much.
LITTLE_MEMORY = 2_000_000_000
#: Clocks further apart make times in reports wrong; leases go by Redis's clock alone.
SKEW_S = 2.0
SILENT_MS = 15_000
_PACKAGES = ("ray", "torch", "diffusers", "peft", "redis", "boto3", "pyarrow", "pydantic")
_OLDEST_PYTHON = (3, 11)


def examine() -> list[Finding]:
    """All findings, in the order in which things depend on each other. Raises nothing of ours."""
    found = [*_python(), *_devices()]
    try:
        settings = current_settings()
    except FewstepError as error:
        return [*found, _fault("settings", error)]
    found += _disk(read_settings())
    for name, check in _SERVERS.items():
        try:
            found += check(settings)
        except FewstepError as error:
            found.append(_fault(name, error))
    return found


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _OLDEST_PYTHON:
        yield Finding("python", "fail", version, "use Python 3.11 or newer")
    else:
        yield Finding("python", "ok", version)
    for name in _PACKAGES:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", "pip install 'fewstep[local]'")


def _devices() -> Iterator[Finding]:
    found = gpus()
    for gpu in found:
        yield Finding("gpu", "ok", f"{gpu.name}, {gpu.memory / 1e9:.0f} GB")
    if not found:
        remedy = "enough for the embedded model; for larger ones use a machine with a GPU"
        yield Finding("gpu", "warn", "none: renderers will use CPU cores", remedy)
    yield Finding("cores", "ok", str(cores()))
    free = free_memory()
    text = f"{free / 1e9:.1f} GB free"
    if free > LITTLE_MEMORY:
        yield Finding("memory", "ok", text)
    else:
        yield Finding("memory", "warn", text, "end other programs")


def _disk(settings: Settings) -> Iterator[Finding]:
    there = next(one for one in (settings.home, *settings.home.parents) if one.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free in {there}"
    if free < NO_DISK:
        yield Finding("disk", "fail", text, "make room, or set FEWSTEP_HOME elsewhere")
    elif free < LITTLE_DISK:
        yield Finding("disk", "warn", text, "make room before a large job")
    else:
        yield Finding("disk", "ok", text)


def _stack(settings: Settings) -> Iterator[Finding]:
    state = load_state(settings.home)
    if state is None:
        yield Finding("stack", "ok", "no local stack is up here")
        return
    for name in state.dead:
        yield Finding(name, "fail", "its process is dead", "run `fewstep up`")
    if not state.dead:
        yield Finding("stack", "ok", f"all of {', '.join(state.embedded)} run")


def _redis(settings: Settings) -> Iterator[Finding]:
    with heartbeat_client(settings.redis_url.get_secret_value()) as client:
        where = address(client)
        facts = check_server(client)
        begin = time.time()
        with explained(where):
            seconds, micros = client.time()
        middle = (begin + time.time()) / 2
    yield Finding("redis", "ok", f"version {facts.version} at {where}")
    if not facts.append_only:
        text = "it keeps no append-only file: a crash forgets what it knew"
        yield Finding("redis file", "warn", text, "CONFIG SET appendonly yes")
    skew = abs(int(seconds) + int(micros) / 1e6 - middle)
    if skew > SKEW_S:
        yield Finding("clock", "warn", f"{skew:.1f} s from Redis's", "synchronise the clocks")
    else:
        yield Finding("clock", "ok", f"within {max(skew, 0.001):.3f} s of Redis's")


def _store(settings: Settings) -> Iterator[Finding]:
    store = Store.connect(settings)
    store.close()
    yield Finding("store", "ok", f"bucket {store.bucket} at {store.address}, the keys fit")
    if store.honours_absent:
        yield Finding("store writes", "ok", "If-None-Match is honoured")
    else:
        text = "If-None-Match is ignored: Redis decides which of two writers wins"
        yield Finding("store writes", "warn", text, "a newer version of the store may honour it")


def _cluster(settings: Settings) -> Iterator[Finding]:
    with Client(settings.api_url, timeout_s=5.0) as client:
        client.health()
        cluster = client.cluster()
    yield Finding("api", "ok", settings.api_url)
    age = cluster["scheduler_age_ms"]
    if age is None or age > SILENT_MS:
        seen = "never seen" if age is None else f"last seen {age / 1000:.0f} s ago"
        yield Finding("scheduler", "fail", seen, "run `fewstep up`, or python -m scheduler")
    else:
        yield Finding("scheduler", "ok", f"seen {age / 1000:.1f} s ago")
    yield Finding("renderers", "ok", _renderers(cluster))


def _renderers(cluster: dict[str, Any]) -> str:
    living = cluster["renderers"]
    if not living:
        return "none just now; they are started when a job waits"
    return ", ".join(str(one["worker"]) for one in living[:8])


def _ray(settings: Settings) -> Iterator[Finding]:
    host, _, port = settings.ray_address.rpartition(":")
    if not port.isdigit():
        yield Finding("ray", "warn", f"address {settings.ray_address!r}", "run `fewstep up`")
        return
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError as error:
        text = f"{settings.ray_address} does not answer: {error}"
        yield Finding("ray", "fail", text, "run `fewstep up`, or correct FEWSTEP_RAY_ADDRESS")
    else:
        yield Finding("ray", "ok", f"listens at {settings.ray_address}")


def _models(settings: Settings) -> Iterator[Finding]:
    catalog = load_catalog(settings.catalog)
    tables = (
        ("model", catalog.models),
        ("vae", catalog.vaes),
        ("accelerator", catalog.accelerators),
        ("style", catalog.styles),
    )
    for kind, entries in tables:
        for name, entry in entries.items():
            yield _weights(f"{kind} {name}", entry.weights, hub=settings.hub_access)


def _weights(name: str, weights: Weights, *, hub: bool) -> Finding:
    try:
        folder = locate(weights)
    except FewstepError as error:
        if not weights.source.startswith("hub:"):
            return _fault(name, error)
        if hub:
            return Finding(name, "ok", f"{weights.source} will be fetched when it is first used")
        remedy = "set FEWSTEP_HUB_ACCESS=true, or list a folder of yours in FEWSTEP_CATALOG"
        return Finding(name, "warn", f"{weights.source} is not on this machine", remedy)
    return Finding(name, "ok", str(folder))


def _fault(name: str, error: FewstepError) -> Finding:
    text = f"{error.where}: {error.message}" if error.where else error.message
    return Finding(name, "fail", text, error.remedy or "")


_SERVERS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "stack": _stack,
    "redis": _redis,
    "store": _store,
    "ray": _ray,
    "api": _cluster,
    "models": _models,
}
