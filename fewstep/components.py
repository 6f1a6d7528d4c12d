"""The parts of a local stack one by one: how each is started, and when it counts as ready."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fewstep.local_ray import ray_is_ready, start_ray
from fewstep.local_redis import start_redis
from fewstep.local_s3 import start_s3
from fewstep.processes import ProcessMark, is_alive
from fewstep.stack_plan import port_of
from fewstep.stack_state import StackState
from jobs.client import Client
from jobs.errors import BadConfiguration, Unreachable
from jobs.redis_client import check_server, heartbeat_client
from jobs.settings import Settings
from jobs.store import Store

TITLES = {
    "redis": "Redis",
    "s3": "the object store",
    "ray": "Ray",
    "api": "the API",
    "scheduler": "the scheduler",
}
#: Ray takes five seconds on an idle core; the rest is for busy machines.
READY_S = {"ray": 120.0, "api": 120.0, "scheduler": 180.0}
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Place:
    """What starting a part needs to know."""

    home: Path
    state: StackState
    settings: Settings
    #: Holds secrets.
    variables: Mapping[str, str] = field(repr=False)

    def log(self, component: str) -> Path:
        """Where a component writes what it has to say."""
        return log_of(self.home, component)


def log_of(home: Path, component: str) -> Path:
    """The log of a component of the stack kept in `home`."""
    return home / "logs" / f"{component}.log"


def launch(component: str, place: Place) -> subprocess.Popen[bytes]:
    """Start a part in a session of its own; Redis and the store answer when this returns.

    Its log begins anew; what the one before it said is kept beside it.
    """
    log = place.log(component)
    if log.exists():
        log.replace(log.with_suffix(".log.old"))
    return _LAUNCH[component](place)


def await_ready(component: str, place: Place, mark: ProcessMark) -> None:
    """Return once the API, Ray or the scheduler does its work.

    Raises BadConfiguration with the last words of its log where it ends or takes too long.
    """
    begin = time.monotonic()
    end = begin + READY_S[component]
    while not _READY[component](place, time.monotonic() - begin):
        if not is_alive(mark):
            raise _failed(f"{TITLES[component]} ended as it started", place.log(component))
        if time.monotonic() > end:
            words = f"{TITLES[component]} was not ready in {READY_S[component]:.0f} s"
            raise _failed(words, place.log(component))
        time.sleep(_POLL_S)


def check_given(state: StackState, settings: Settings) -> None:
    """Check the servers that variables name, before anything is started.

    Raises Unreachable or BadConfiguration naming the address.
    """
    if "redis" in state.given:
        with heartbeat_client(state.redis_url) as client:
            check_server(client)
    if "s3" in state.given:
        Store.connect(settings).close()


def _launch_redis(place: Place) -> subprocess.Popen[bytes]:
    url = urlsplit(place.state.redis_url)
    return start_redis(
        place.home / "redis", port_of(url.geturl()), url.password or "", place.log("redis")
    )


def _launch_s3(place: Place) -> subprocess.Popen[bytes]:
    state = place.state
    return start_s3(
        place.home / "store",
        port_of(state.s3_endpoint or ""),
        state.s3_access_key or "",
        state.s3_secret_key or "",
        place.log("s3"),
    )


def _launch_ray(place: Place) -> subprocess.Popen[bytes]:
    state = place.state
    port = port_of(state.ray_address)
    folder = Path(state.ray_folder)
    return start_ray(folder, port, state.renderers, place.variables, place.log("ray"))


def _launch_api(place: Place) -> subprocess.Popen[bytes]:
    port = str(port_of(place.state.api_url))
    return _module(place, "api", "jobs.api", "--host", "127.0.0.1", "--port", port)


def _launch_scheduler(place: Place) -> subprocess.Popen[bytes]:
    return _module(place, "scheduler", "scheduler")


def _module(place: Place, component: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    with place.log(component).open("ab") as output:
        return subprocess.Popen(
            # -P: a folder of the user's called `jobs` must not stand in for ours.
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(place.variables),
            cwd=place.home,
            start_new_session=True,
        )


def _ray_is_ready(place: Place, waited_s: float) -> bool:
    state = place.state
    return ray_is_ready(Path(state.ray_folder), port_of(state.ray_address))


def _api_is_ready(place: Place, waited_s: float) -> bool:
    with Client(place.state.api_url, timeout_s=5.0) as client:
        try:
            client.health()
        except Unreachable:
            # Refused while it loads, 503 while its servers come up.
            return False
    return True


def _scheduler_is_ready(place: Place, waited_s: float) -> bool:
    with Client(place.state.api_url, timeout_s=5.0) as client:
        age = client.cluster()["scheduler_age_ms"]
    # Seen since it was started: the beat of one that was killed may still be fresh.
    return age is not None and age < waited_s * 1000


def _failed(message: str, log: Path) -> BadConfiguration:
    return BadConfiguration(message, where=str(log), remedy=f"its last words: {last_words(log)}")


def last_words(log: Path, lines: int = 3) -> str:
    """The last lines of a log that say something, as one line of at most 500 characters."""
    try:
        text = log.read_bytes()[-4_000:].decode("utf-8", "replace")
    except FileNotFoundError:
        return "none"
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(said[-lines:])[-500:] or "none"


_LAUNCH: dict[str, Callable[[Place], subprocess.Popen[bytes]]] = {
    "redis": _launch_redis,
    "s3": _launch_s3,
    "ray": _launch_ray,
    "api": _launch_api,
    "scheduler": _launch_scheduler,
}
_READY: dict[str, Callable[[Place, float], bool]] = {
    "ray": _ray_is_ready,
    "api": _api_is_ready,
    "scheduler": _scheduler_is_ready,
}
