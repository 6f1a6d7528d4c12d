"""A real Redis that cannot serve just now: what the clients do, and what they say about it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from jobs.errors import Unreachable
from jobs.redis_client import control_client, explain, heartbeat_client
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import request_for
from tests.servers import RedisServer, running_redis, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server of this file's own, because it is mistreated."""
    with running_redis() as running:
        yield running


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.flushall()
        yield client


Mend = Callable[[], object]


@contextmanager
def full(admin: redis.Redis, server: RedisServer) -> Iterator[Mend]:
    """maxmemory is reached."""
    admin.config_set("maxmemory", 1)
    yield lambda: admin.config_set("maxmemory", 0)


@contextmanager
def replica(admin: redis.Redis, server: RedisServer) -> Iterator[Mend]:
    """The primary failed over, and this one takes no writes."""
    admin.replicaof("127.0.0.1", 1)
    yield lambda: admin.replicaof("NO", "ONE")


@contextmanager
def without_replicas(admin: redis.Redis, server: RedisServer) -> Iterator[Mend]:
    """Fewer replicas than it was told to want."""
    admin.config_set("min-replicas-to-write", 1)
    yield lambda: admin.config_set("min-replicas-to-write", 0)


@contextmanager
def disk_gone(admin: redis.Redis, server: RedisServer) -> Iterator[Mend]:
    """It cannot write its file, and therefore takes no writes."""
    before = admin.config_get("dir")["dir"]
    folder = Path(before) / "gone"
    folder.mkdir()
    admin.config_set("dir", str(folder))
    folder.rmdir()
    admin.config_set("save", "3600 1")
    admin.set("dirty", 1)
    admin.bgsave()
    wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", "the failure")

    def mend() -> None:
        admin.config_set("save", "")
        admin.config_set("dir", before)
        admin.bgsave()
        wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "ok", "the file")

    yield mend


@contextmanager
def busy(admin: redis.Redis, server: RedisServer) -> Iterator[Mend]:
    """Somebody's script does not end."""
    admin.config_set("lua-time-limit", 10)
    spinning = server.client()

    def spin() -> None:
        with pytest.raises(redis.ResponseError, match="killed"):
            spinning.eval("while true do end", 0)

    thread = threading.Thread(target=spin)
    thread.start()
    wait_until(lambda: says(admin, "BUSY"), "the script to be noticed")

    def mend() -> None:
        admin.script_kill()
        thread.join()
        spinning.close()

    yield mend


@contextmanager
def loading(admin: redis.Redis, server: RedisServer) -> Iterator[Mend]:
    """It was started again and reads its file."""
    # It answers at every two megabytes that it has read.
    admin.config_set("rdbcompression", "no")
    fill = "for i = 1, 150 do redis.call('SET', 'k' .. i, string.rep('x', 300000)) end"
    admin.eval(fill, 0)
    admin.config_set("key-load-delay", 40_000)
    reloading = server.client()

    def reload() -> None:
        reloading.execute_command("DEBUG", "RELOAD")

    thread = threading.Thread(target=reload)
    thread.start()
    wait_until(lambda: says(admin, "loading"), "it to load")

    def mend() -> None:
        thread.join()
        admin.config_set("key-load-delay", 0)
        reloading.close()

    yield mend


def says(client: redis.Redis, word: str) -> bool:
    try:
        client.set("probe", 1)
    except redis.RedisError as error:
        return word in str(error)
    return False


CASES = [
    (full, "maxmemory"),
    (replica, "primary"),
    (without_replicas, "replicas"),
    (disk_gone, "disk"),
    (busy, "SCRIPT KILL"),
    (loading, "wait"),
]


@pytest.mark.parametrize(("broken", "remedy"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_heartbeat_fails_at_once_and_everything_else_waits(
    server: RedisServer,
    admin: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[..., Iterator[Mend]],
    remedy: str,
) -> None:
    pauses: list[float] = []
    with heartbeat_client(server.url) as quick, control_client(server.url) as patient:
        assert ShardQueue(quick).submit(request_for("before")).outcome == "ok"
        with broken(admin, server) as mend:  # type: ignore[attr-defined]

            def pause(seconds: float) -> None:
                """What redis-py does between two tries: here the trouble ends meanwhile."""
                pauses.append(seconds)
                if len(pauses) == 2:
                    mend()

            monkeypatch.setattr("redis.retry.sleep", pause)
            with pytest.raises(Unreachable, match="no writes just now") as caught:
                ShardQueue(quick).submit(request_for("job"))
            assert pauses == []
            assert remedy in str(caught.value.remedy)

            assert ShardQueue(patient).submit(request_for("job")).outcome == "ok"
    assert len(pauses) == 2
    assert all(0 < seconds <= 2 for seconds in pauses)


def test_patience_ends(
    server: RedisServer, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("redis.retry.sleep", pauses.append)
    with replica(admin, server) as mend, control_client(server.url) as patient:
        with pytest.raises(Unreachable):
            ShardQueue(patient).submit(request_for("job"))
        mend()
    # The API's caller is told within seconds.
    assert len(pauses) == 6
    assert sum(pauses) <= 6


def test_a_bug_of_ours_is_not_repeated(
    server: RedisServer, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis.retry.sleep", lambda seconds: pytest.fail("it was repeated"))
    with control_client(server.url) as patient:
        patient.set("text", "a")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            patient.hgetall("text")
        with pytest.raises(redis.ResponseError) as caught:
            patient.eval("return redis.call('NONSENSE')", 0)
        assert explain(caught.value) is None
        patient.execute_command("ACL", "SETUSER", "low", "on", ">pw", "~none", "+@read")
        with control_client(f"redis://low:pw@127.0.0.1:{server.port}/0") as low:
            with pytest.raises(redis.exceptions.NoPermissionError):
                low.set("text", 1)
