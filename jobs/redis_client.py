"""Connections to Redis, with time limits that fit the queue and errors that a person can read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from jobs.errors import BadConfiguration, FewstepError, Unreachable

OLDEST = (6, 2)
_AWAY = (redis.ConnectionError, redis.TimeoutError)
_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
_BUSY = (
    BusyLoadingError,
    ReadOnlyError,
    ClusterDownError,
    MasterDownError,
    TryAgainError,
    OutOfMemoryError,
)
# Replies that redis-py has no class for, and those that come from inside a script ("-O" is how
# 6.2 may garble OOM there).
_BUSY_WORDS = re.compile(
    r"\b(BUSY|LOADING|MISCONF|NOREPLICAS|OOM|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN)\b|-O\b"
)
# By what the reply says, redis-py's own texts for its classes among it.
_REMEDIES = (
    (r"loading", "it is reading its file: wait"),
    (r"\bOOM\b|-O\b|maxmemory", "raise its maxmemory, or wait until jobs have ended"),
    (r"MISCONF|snapshot|persist", "make room on its disk, or see its log for why it cannot write"),
    (r"READONLY|read only", "it is a replica: put the primary's address into FEWSTEP_REDIS_URL"),
    (r"\bBUSY\b", "somebody's script does not end: SCRIPT KILL, if it goes on"),
    (r"NOREPLICAS|good replicas", "bring its replicas back, or lower min-replicas-to-write"),
    (r"MASTERDOWN|CLUSTERDOWN|TRYAGAIN", "it fails over: wait, or see its cluster's state"),
)

# Tries after the first one: about three seconds in all, so that an API's caller is told in time
# (503) and a renderer, whose own loops go on asking, does not stand still for long.
_RETRIES, _PAUSE_S, _PAUSE_MAX_S = 6, 0.05, 2.0

_CONTROL: dict[str, Any] = {
    # An op takes milliseconds; a script that others hold up may take seconds.
    "socket_timeout": 5,
    # Refused and unrouted addresses are told apart from slow servers early.
    "socket_connect_timeout": 2,
    # A connection that idled while a shard rendered may be dead without either end knowing.
    "health_check_interval": 15,
    "socket_keepalive": True,
}
_HEARTBEAT: dict[str, Any] = {
    # A renewal that is not through in two seconds is tried anew by the keeper, which must see a
    # lease's end coming: redis-py's own ten retries would outlast the lease.
    "socket_timeout": 2,
    "socket_connect_timeout": 2,
}


class _Patient(Retry):
    """Retries what may pass: a lost connection, and a server that cannot serve just now.

    redis-py alone would not repeat BUSY, MISCONF or OOM, and counts a wrong password among lost
    connections. The connection is made anew each time, which finds the new primary after READONLY.
    """

    def __init__(self) -> None:
        pauses = ExponentialWithJitterBackoff(cap=_PAUSE_MAX_S, base=_PAUSE_S)
        super().__init__(pauses, _RETRIES, (*_AWAY, ResponseError))

    def call_with_retry(  # type: ignore[override]
        self, do: Any, fail: Any, is_retryable: Any = None, **options: Any
    ) -> Any:
        def may_pass(error: Exception) -> bool:
            if isinstance(error, _REFUSED) or not (isinstance(error, _AWAY) or is_busy(error)):
                return False
            return not is_retryable or bool(is_retryable(error))

        return super().call_with_retry(do, fail, may_pass, **options)


def control_client(url: str) -> redis.Redis:
    """A client for everything but renewals: patient, resends what got no reply.

    Resending is harmless because every op of the queue may run twice. Does not connect yet.
    """
    return _client(url, **_CONTROL, retry=_Patient())


def heartbeat_client(url: str) -> redis.Redis:
    """A client for renewals: gives up after two seconds, so that a lease's end is noticed in time.

    Does not connect yet.
    """
    return _client(url, **_HEARTBEAT, retry=Retry(NoBackoff(), 0))


def _client(url: str, **settings: Any) -> redis.Redis:
    try:
        return redis.Redis.from_url(url, decode_responses=True, **settings)
    except ValueError as error:
        raise BadConfiguration(
            f"no Redis address: {error}",
            where="redis_url",
            remedy="redis://:password@host:port/0, or rediss:// with TLS",
        ) from error


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a Redis server says of itself; sizes in bytes, `maxmemory` 0: no limit."""

    version: str
    used_memory: int
    maxmemory: int
    append_only: bool


def check_server(client: redis.Redis) -> ServerFacts:
    """What the server is, if the queue may live there.

    With a heartbeat client it says at once what is wrong, a control client is patient first.
    Raises Unreachable (no answer) or BadConfiguration (wrong password, a policy that evicts
    keys, a server older than 6.2).
    """
    where = address(client)
    with explained(where):
        info: dict[str, Any] = dict(client.info())
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise BadConfiguration(
            f"Redis evicts keys when memory is short (maxmemory-policy {policy})",
            where=where,
            remedy="CONFIG SET maxmemory-policy noeviction",
        )
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise BadConfiguration(f"Redis {version} is too old", where=where, remedy="6.2 or newer")
    return ServerFacts(
        version=version,
        used_memory=int(info.get("used_memory", 0)),
        maxmemory=int(info.get("maxmemory", 0)),
        append_only=bool(info.get("aof_enabled", 0)),
    )


@contextmanager
def explained(where: str | None = None) -> Iterator[None]:
    """Turn redis-py's errors into ours; those that are bugs of ours pass unchanged."""
    try:
        yield
    except RedisError as error:
        known = explain(error, where)
        if known is None:
            raise
        raise known from error


def explain(error: RedisError, where: str | None = None) -> FewstepError | None:
    """Our error for one of redis-py's; None where waiting or other settings would not help."""
    if isinstance(error, _REFUSED) or "NOAUTH" in str(error):
        return BadConfiguration(
            "Redis refuses our name or password",
            where=where or "redis_url",
            remedy="put the right ones into FEWSTEP_REDIS_URL: redis://user:password@host:port/0",
        )
    if is_busy(error):
        text = str(error)
        remedy = next((tip for sign, tip in _REMEDIES if re.search(sign, text)), None)
        return Unreachable(
            f"Redis takes no writes just now: {text[:200]}", where=where, remedy=remedy
        )
    if isinstance(error, _AWAY):
        return Unreachable(
            f"Redis does not answer: {str(error)[:200]}",
            where=where,
            remedy="is it running, and is FEWSTEP_REDIS_URL its address?",
        )
    return None


def is_busy(error: Exception) -> bool:
    """Whether the server answered but cannot serve now: loading, failing over, out of memory."""
    if isinstance(error, _BUSY):
        return True
    return isinstance(error, ResponseError) and bool(_BUSY_WORDS.search(str(error)))


def address(client: redis.Redis) -> str:
    """Host and port of a client's server, without the password."""
    settings = client.connection_pool.connection_kwargs
    if "path" in settings:
        return str(settings["path"])
    return f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def safe_url(url: str) -> str:
    """The URL without user and password, for messages and logs."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
