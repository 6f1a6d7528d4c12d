"""What the doctor asks Redis and the store: do they answer, take writes, keep the time."""

import time
import uuid
from collections.abc import Iterator

import redis

from fewstep.findings import Finding
from jobs.queue_script import key_prefix
from jobs.redis_client import ServerFacts, address, check_server, explained, heartbeat_client
from jobs.s3_client import BRIEF
from jobs.settings import Settings
from jobs.store import Store

#: Clocks further apart make times in reports wrong; leases go by Redis's clock alone.
SKEW_S = 2.0
#: Stores tell whole seconds; at fifteen minutes they refuse every request.
STORE_SKEW_S = 5.0
#: Of maxmemory: beyond it there is little room for new jobs.
MUCH_MEMORY = 0.7


def redis_found(settings: Settings) -> Iterator[Finding]:
    """Whether the queue may live there. Raises what `check_server` raises."""
    with heartbeat_client(settings.redis_url.get_secret_value()) as client:
        where = address(client)
        facts = check_server(client)
        begin = time.time()
        with explained(where):
            seconds, micros = client.time()
        middle = (begin + time.time()) / 2
        yield Finding("redis", "ok", f"version {facts.version} at {where}")
        yield _memory(facts)
        if not facts.append_only:
            text = "it keeps no append-only file: a crash forgets what it knew"
            yield Finding("redis file", "warn", text, "CONFIG SET appendonly yes")
        skew = int(seconds) + int(micros) / 1e6 - middle
        yield _clock("clock", skew, SKEW_S, "Redis's")
        _try_write(client, where)
    yield Finding("redis writes", "ok", "it takes them")


def store_found(settings: Settings) -> Iterator[Finding]:
    """Whether the bucket can be used. Raises what `Store.connect` raises."""
    store = Store.connect(settings, patience=BRIEF)
    try:
        yield Finding("store", "ok", f"bucket {store.bucket} at {store.address}, the keys fit")
        if store.honours_absent:
            yield Finding("store writes", "ok", "If-None-Match is honoured")
        else:
            text = "If-None-Match is ignored: Redis decides which of two writers wins"
            remedy = "a newer version of the store may honour it"
            yield Finding("store writes", "warn", text, remedy)
        yield _clock(
            "store clock", _store_skew(store, settings.s3_prefix), STORE_SKEW_S, "the store's"
        )
    finally:
        store.close()


def _try_write(client: redis.Redis, where: str) -> None:
    """Raises Unreachable with the remedy where Redis answers, and takes no writes."""
    with explained(where):
        client.set(f"{key_prefix()}:emitted:doctor-{uuid.uuid4().hex}", 1, px=1_000)


def _memory(facts: ServerFacts) -> Finding:
    used = f"{facts.used_memory / 1e6:.0f} MB used"
    if not facts.maxmemory:
        return Finding("redis memory", "ok", f"{used}, no limit set")
    share = facts.used_memory / facts.maxmemory
    text = f"{used} of {facts.maxmemory / 1e6:.0f} MB ({share:.0%})"
    if share < MUCH_MEMORY:
        return Finding("redis memory", "ok", text)
    remedy = "raise maxmemory, or wait until jobs have ended: full, it takes no new ones"
    return Finding("redis memory", "warn", text, remedy)


def _store_skew(store: Store, prefix: str) -> float:
    """Seconds by which the store's clock is ahead, as of an object written just now."""
    key = f"{prefix}/_scratch/clock-{uuid.uuid4().hex}"
    begin = time.time()
    store.put(key, b"1")
    middle = (begin + time.time()) / 2
    found = store.head(key)
    store.delete([key])
    return 0.0 if found is None else found.modified_ms / 1000 - middle


def _clock(name: str, skew: float, limit: float, whose: str) -> Finding:
    if abs(skew) > limit:
        return Finding(name, "warn", f"{abs(skew):.1f} s from {whose}", "synchronise the clocks")
    return Finding(name, "ok", f"within {max(abs(skew), 0.001):.3f} s of {whose}")
