"""Faults of Redis: killed, loading, full, busy, or refusing us."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from jobs.errors import FewstepError
from tests.chaos.fault import Fault
from tests.chaos.machine import fill, root_missing, small_disk
from tests.chaos.one_site import Site
from tests.chaos.seats import RedisSeat
from tests.chaos.striking import begun, last
from tests.servers import wait_until

#: Commands that Redis has to read again while nobody is served.
BULK = 40_000


def crash(site: Site) -> None:
    """Redis is killed and comes back from its file, twice."""
    begun(site)
    for _ in range(2):
        with site.recovery.outage(site.progress):
            site.redis.kill()
            last(0.5)
            site.redis.start()


def loading(site: Site) -> None:
    """Redis comes back with so much to read that it serves nobody for seconds."""
    pipe = site.client.pipeline(transaction=False)
    for number in range(BULK):
        pipe.set(f"bulk:{number}", "x")
    pipe.execute()
    begun(site)
    with site.recovery.outage(site.progress):
        site.redis.kill()
        # It looks up from its file once in a thousand commands, to say that it is loading.
        site.redis.start("--key-load-delay", "100")
        saw = _is_loading(site)
        wait_until(lambda: not _is_loading(site), "the end of loading", 180)
        site.client.delete(*(f"bulk:{number}" for number in range(BULK)))
    assert saw, "it was never loading"


def _is_loading(site: Site) -> bool:
    with site.redis.client() as client:
        try:
            client.ping()
        except (redis.BusyLoadingError, redis.TimeoutError):
            return True
    return False


def memory_full(site: Site) -> None:
    """Redis reaches its maxmemory and refuses what would grow it."""
    begun(site)
    with site.recovery.outage(site.progress):
        site.client.config_set("maxmemory", "1")
        _submit_is_refused(site)
        last(2.0)
        site.client.config_set("maxmemory", "0")


@contextmanager
def on_a_small_disk(seat: RedisSeat) -> Iterator[None]:
    """The append-only file has 4 MB of room."""
    with small_disk(seat.folder, "4m"):
        yield


def disk_full(site: Site) -> None:
    """The disk of the append-only file is full: Redis refuses every write."""
    begun(site)
    ballast = fill(site.redis.folder)
    with site.recovery.outage(site.progress):
        wait_until(lambda: _refuses(site), "Redis to refuse writes", 120)
        _submit_is_refused(site)
        last(1.0)
        ballast.unlink()


def _refuses(site: Site) -> bool:
    with site.redis.client() as client:
        try:
            client.set("probe", "x" * 4096, px=300)
        except redis.ResponseError as error:
            return "MISCONF" in str(error)
    return False


def _submit_is_refused(site: Site) -> None:
    try:
        site.submit(images=4)
    except FewstepError as error:
        assert error.code == "unreachable", error  # noqa: PT017 - that nothing is raised fails below
        return
    raise AssertionError("a job was accepted that Redis cannot hold")


def busy(site: Site) -> None:
    """Somebody else's script spins for seconds: Redis answers everybody BUSY."""
    begun(site)
    with site.recovery.outage(site.progress), site.redis.client() as client:
        spin = threading.Thread(target=_spin, args=(site,))
        spin.start()
        wait_until(lambda: _is_busy(client), "BUSY", 120)
        spin.join()


def _spin(site: Site) -> None:
    with site.redis.client() as client:
        client.eval("local x = 0 for i = 1, 2e8 do x = x + i end return x", 0)


def _is_busy(client: "redis.Redis") -> bool:
    try:
        client.get("x")
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def password(site: Site) -> None:
    """The password is changed and everybody is thrown out; later it is the old one again."""
    begun(site, restart=True)
    with site.recovery.outage(site.progress), site.redis.client() as client:
        client.config_set("requirepass", "another")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        last(2.0)
        client.config_set("requirepass", "")
    _refused_without_harm(site)


def rights(site: Site) -> None:
    """The user may run no scripts any more, for a while."""
    begun(site, restart=True)
    with site.recovery.outage(site.progress), site.redis.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")
        last(2.0)
        client.execute_command("ACL", "SETUSER", "default", "+@all")
    _refused_without_harm(site)


def _refused_without_harm(site: Site) -> None:
    site.wait_for_end()
    for name in ("a", "b"):
        site.children[name].restart = False
        assert len(site.children[name].fallen) <= 3, "a renderer that Redis refuses spins"
    # Who is refused cannot give its units back: that is one death, and a first one is free.
    assert site.most_deaths() <= 1, "a refusal was counted twice against a unit"


FAULTS = [
    Fault(
        "10",
        "Redis killed",
        "SIGKILL, and started again on its append-only file",
        crash,
        short=True,
    ),
    Fault("11", "Redis is loading", "SIGKILL, then `key-load-delay` for seconds", loading),
    Fault("12", "Redis is out of memory", "CONFIG SET maxmemory 1 for 2 s", memory_full),
    Fault(
        "13",
        "Redis' disk is full",
        "append-only file on a tmpfs that is filled up",
        disk_full,
        needs=root_missing,
        room=on_a_small_disk,
    ),
    Fault(
        "14",
        "a script of somebody else spins",
        "EVAL of a long loop, `lua-time-limit 100`",
        busy,
        redis_options=("--lua-time-limit", "100"),
    ),
    Fault(
        "22",
        "Redis' password is changed",
        "CONFIG SET requirepass, connections killed, for 2 s",
        password,
    ),
    Fault("22", "Redis denies the scripts", "ACL SETUSER -eval -evalsha for 2 s", rights),
]
