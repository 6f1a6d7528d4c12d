"""Faults of what Redis remembers: everything or its last writes forgotten, time turned."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.chaos.bench import up
from tests.chaos.fault import Fault
from tests.chaos.machine import clock_missing, turned_clock
from tests.chaos.one_site import Site
from tests.chaos.seats import OLD, RedisSeat
from tests.chaos.striking import begun, last
from tests.servers import wait_until


def forgets_everything(site: Site) -> None:
    """FLUSHALL in the middle; the scheduler rebuilds the queue from the store by itself."""
    begun(site)

    def progress() -> int:
        return site.progress() if site.queue.job(site.the_job.id) else 0

    with site.recovery.outage(progress):
        site.client.flushall()
        wait_until(lambda: site.queue.job(site.the_job.id) is not None, "the queue's return", 180)


def tail_lost(site: Site) -> None:
    """The last writes of the append-only file are lost, as with a power cut."""
    begun(site)
    with site.recovery.outage(site.progress):
        site.redis.kill()
        cut_tails(site.redis.folder, 0.8)
        site.redis.start()


def cut_tails(folder: Path, kept: float) -> None:
    """Leave only this share of what was appended."""
    for path in _append_only(folder):
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(int(size * kept))


def _append_only(folder: Path) -> list[Path]:
    """The files that are appended to: one on 6.2, the increments in a folder on 7.0."""
    return [
        path
        for path in folder.rglob("*appendonly.aof*")
        if "manifest" not in path.name and "base" not in path.name
    ]


def old_snapshot(site: Site) -> None:
    """Redis comes back with the memory it had shards ago."""
    up(site)
    wait_until(lambda: bool(site.queue.leases()), "the first lease", 180)
    last(1.1)  # everysec: what is not on disk yet is not copied
    copy = site.folder / "old"
    shutil.copytree(site.redis.folder, copy)
    site.wait_for_progress(24)
    with site.recovery.outage(site.progress):
        site.redis.kill()
        shutil.rmtree(site.redis.folder)
        shutil.move(copy, site.redis.folder)
        site.redis.start()


@contextmanager
def replica(site: Site) -> Iterator[RedisSeat]:
    """A second Redis that follows the first one through a proxy of its own."""
    way = site.line("replication").redis
    seat = RedisSeat(site.folder / "replica", site.redis.version)
    seat.start("--replicaof", "127.0.0.1", str(way.port))
    with seat.client() as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", "sync", 120)
    yield seat


def failover(site: Site) -> None:
    """The replica, which missed the last writes, is made the primary."""
    site.pace_s *= 2  # a job that is not over before the replica is
    with replica(site) as seat:
        begun(site)
        site.line("replication").redis.hold = True
        site.wait_for_progress(24)
        with site.recovery.outage(site.progress):
            old = site.redis
            old.kill()
            _promote(site, seat)


def read_only(site: Site) -> None:
    """Clients meet a replica that takes no writes, until it is promoted."""
    with replica(site) as seat:
        begun(site)
        with site.recovery.outage(site.progress):
            for proxy in site.redis_proxies():
                if proxy is not site.line("replication").redis:
                    proxy.target = seat.port
                    proxy.reset()
            last(1.5)
            site.redis.kill()
            _promote(site, seat)


def _promote(site: Site, seat: RedisSeat) -> None:
    with seat.client() as client:
        client.replicaof("NO", "ONE")
    for proxy in site.redis_proxies():
        proxy.target = seat.port
    site.move_redis(seat)


@contextmanager
def by_another_clock(seat: RedisSeat) -> Iterator[None]:
    """Redis' time is the machine's plus what a file says."""
    seat.env = turned_clock(_clock_file(seat))
    yield


def _clock_file(seat: RedisSeat) -> Path:
    return seat.folder.parent / "clock"


def clock(site: Site, by: str) -> None:
    """Redis' clock jumps; leases end early, or would never end."""
    begun(site)
    before = site.client.time()[0]
    with site.recovery.outage(site.progress):
        _clock_file(site.redis).write_text(f"{by}\n")
        wait_until(lambda: abs(site.client.time()[0] - before) > 3000, "the clock to jump", 120)


FAULTS = [
    Fault(
        "15",
        "Redis forgets everything",
        "FLUSHALL; the scheduler reads the queue back from the store",
        forgets_everything,
        short=True,
    ),
    Fault(
        "16",
        "the tail of the append-only file is lost",
        "SIGKILL, 20 % of the file cut off",
        tail_lost,
    ),
    Fault(
        "16",
        "Redis comes back with an old snapshot",
        "SIGKILL, and the file of some shards ago",
        old_snapshot,
    ),
    Fault(
        "17",
        "failover loses acknowledged writes",
        "replica behind a black hole, promoted",
        failover,
    ),
    Fault(
        "18",
        "writes meet a read-only replica",
        "clients are moved to a replica, promoted later",
        read_only,
    ),
    Fault(
        "21",
        "Redis' clock jumps an hour ahead",
        "libfaketime",
        partial(clock, by="+3600"),
        redis=(OLD,),
        needs=clock_missing,
        room=by_another_clock,
    ),
    Fault(
        "21",
        "Redis' clock jumps an hour back",
        "libfaketime",
        partial(clock, by="-3600"),
        redis=(OLD,),
        needs=clock_missing,
        room=by_another_clock,
    ),
]
