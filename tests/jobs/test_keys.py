"""Keys, quotas and what is counted against them, on a real store and a real Redis."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import httpx
import pytest
import redis
from fastapi import FastAPI
from pydantic import ValidationError

from jobs.allowance import DAY_S, Allowance
from jobs.api.key_ring import KeyRing
from jobs.api.routes_system import probes
from jobs.errors import (
    BadConfiguration,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    TooManyRequests,
    Unreachable,
)
from jobs.key_store import KeyStore, checked_quota
from jobs.keys import ApiKey, Quota, make_key, split_key
from jobs.store import Store

NOW = 1_700_000_000_000


def made(**settings: object) -> tuple[ApiKey, str]:
    return make_key("ann", ("read",), now_ms=NOW, **settings)  # type: ignore[arg-type]


# ---- values ----


def test_a_key_is_kept_without_its_secret() -> None:
    key, text = made()
    parts = split_key(text)

    assert parts is not None
    assert parts[0] == key.id
    assert len(parts[1]) == 43
    assert key.opens_with(parts[1])
    assert not key.opens_with(parts[1][:-1] + ("A" if parts[1][-1] != "A" else "B"))
    assert parts[1] not in key.model_dump_json()
    assert made()[1] != text


@pytest.mark.parametrize("text", ["", "fewstep_", "fewstep_a_b", "Bearer x", "x" * 10_000])
def test_what_is_no_key_is_none(text: str) -> None:
    assert split_key(text) is None


def test_a_key_lives_until_it_runs_out_or_is_revoked() -> None:
    key, _ = made(expires_ms=NOW + 10)

    assert (key.lives(NOW + 9), key.lives(NOW + 10)) == (True, False)
    assert not made()[0].model_copy(update={"revoked_ms": NOW}).lives(NOW)


def test_admin_has_every_scope() -> None:
    admin, _ = make_key("ann", ("admin",), now_ms=NOW)

    assert (admin.allows("submit"), made()[0].allows("submit")) == (True, False)


@pytest.mark.parametrize("tenant", ["", "A", "a/b", "../x", "_keys", "a" * 41, "a\n"])
def test_a_tenants_name_fits_into_a_storage_key(tenant: str, store: Store) -> None:
    with pytest.raises(ValidationError):
        make_key(tenant, ("read",), now_ms=NOW)
    if tenant != "a\n":
        with pytest.raises(InvalidInput):
            KeyStore(store, "p").set_quota(tenant, Quota())


# ---- in the store ----


def test_keys_and_quotas_come_back(store: Store) -> None:
    keys = KeyStore(store, "datasets")
    key, _ = made(name="laptop")
    keys.add(key)
    keys.set_quota("ann", Quota(open_jobs=3, weight=2.5))

    again = KeyStore(store, "datasets")
    assert again.keys() == {key.id: key}
    assert again.quotas() == {"ann": Quota(open_jobs=3, weight=2.5)}


def test_revoking_holds_and_may_be_repeated(store: Store) -> None:
    keys = KeyStore(store, "datasets")
    key, _ = made()
    keys.add(key)

    first = keys.revoke(key.id, NOW + 1)
    again = keys.revoke(key.id, NOW + 2)

    assert (first.revoked_ms, again.revoked_ms) == (NOW + 1, NOW + 1)
    assert keys.keys()[key.id].revoked_ms == NOW + 1
    with pytest.raises(NotFound, match="no such key"):
        keys.revoke("a" * 12, NOW)


def test_an_object_that_is_no_key_is_named(store: Store) -> None:
    store.put("datasets/_keys/aaaaaaaaaaaa.json", b'{"id": "aaaaaaaaaaaa"}')

    with pytest.raises(BadConfiguration, match=r"_keys/aaaaaaaaaaaa\.json"):
        KeyStore(store, "datasets").keys()


@pytest.mark.parametrize(
    ("field", "value"), [("open_jobs", -1), ("weight", 0.0), ("weight", float("nan"))]
)
def test_a_quota_that_cannot_be_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=field):
        checked_quota(**{field: value})


# ---- as the API knows them ----


def test_a_ring_reads_anew_when_it_is_old_or_does_not_know_a_key(store: Store) -> None:
    now = [0.0]
    keys = KeyStore(store, "datasets")
    ring = KeyRing(lambda: KeyStore(store, "datasets"), clock=lambda: now[0])
    assert ring.key("a" * 12) is None
    one, _ = made()
    keys.add(one)

    assert ring.key(one.id) is None, "asked again within a second"
    now[0] = 1.0
    assert ring.key(one.id) == one
    keys.revoke(one.id, NOW)
    now[0] = 5.9
    assert ring.key(one.id) == one
    now[0] = 6.0
    found = ring.key(one.id)
    assert found is not None
    assert found.revoked_ms == NOW
    assert ring.quota("ann") == Quota()


def test_a_ring_outlives_a_store_that_is_away(store: Store) -> None:
    now, away = [0.0], [True]

    class Away(KeyStore):
        def keys(self, *, damaged: bool = False) -> dict[str, ApiKey]:
            if away[0]:
                raise Unreachable("no answer")
            return super().keys(damaged=damaged)

    ring = KeyRing(lambda: Away(store, "datasets"), clock=lambda: now[0])
    key, _ = made()
    KeyStore(store, "datasets").add(key)
    with pytest.raises(Unreachable):
        ring.key(key.id)
    away[0], now[0] = False, 1.0
    assert ring.key(key.id) == key
    away[0], now[0] = True, 100.0
    assert ring.key(key.id) == key


class Counting(KeyStore):
    """A store that says how often it was asked; `before` comes before its answer."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "datasets")
        self.asked = 0
        self.before: Callable[[], object] = lambda: None

    def keys(self, *, damaged: bool = False) -> dict[str, ApiKey]:
        self.asked += 1
        self.before()
        return super().keys(damaged=damaged)


def away() -> None:
    raise Unreachable("no answer")


def test_a_store_that_is_away_is_asked_once_in_a_while(store: Store) -> None:
    now, counting = [0.0], Counting(store)
    key, _ = made()
    counting.add(key)
    counting.before = away
    ring = KeyRing(lambda: counting, clock=lambda: now[0])
    for _ in range(3):
        with pytest.raises(Unreachable, match="no answer"):
            ring.key(key.id)
    assert counting.asked == 1, "before anything was read"

    now[0], counting.before = 1.0, lambda: None
    assert ring.key(key.id) == key
    now[0], counting.before = 7.0, away
    for _ in range(3):
        assert (ring.key(key.id), ring.quota("ann")) == (key, Quota())
        assert ring.key("a" * 12) is None
    assert counting.asked == 3, "once more for all of these"


def test_nobody_waits_behind_who_asks_a_store_that_is_away(store: Store) -> None:
    now, counting = [0.0], Counting(store)
    key, _ = made()
    counting.add(key)
    ring = KeyRing(lambda: counting, clock=lambda: now[0])
    assert ring.key(key.id) == key
    now[0], counting.before = 5.0, away
    ring.key(key.id)
    asked, go_on = threading.Event(), threading.Event()

    def hangs() -> None:
        asked.set()
        go_on.wait(30)
        away()

    now[0], counting.before = 10.0, hangs
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ring.key, key.id)
        try:
            assert asked.wait(30)
            assert pool.submit(ring.key, key.id).result(10) == key
            assert not first.done()
        finally:
            go_on.set()
        assert first.result() == key


def test_one_bad_object_locks_nobody_out_and_keeps_no_revoked_key_open(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    now, keys = [0.0], KeyStore(store, "datasets")
    key, _ = made()
    keys.add(key)
    ring = KeyRing(lambda: keys, clock=lambda: now[0])
    assert ring.key(key.id) == key

    store.put("datasets/_keys/aaaaaaaaaaaa.json", b'{"id": "aaaaaaaaaaaa"}')
    store.put("datasets/_tenants/ann.json", b"{}}")
    now[0] = 5.0
    assert ring.key(key.id) == key
    assert KeyRing(lambda: keys).key(key.id) == key
    KeyStore(store, "datasets").add(key.model_copy(update={"revoked_ms": NOW}))
    now[0] = 10.0
    found = ring.key(key.id)
    assert found is not None
    assert found.revoked_ms == NOW
    assert (ring.key("aaaaaaaaaaaa"), ring.quota("ann")) == (None, Quota())
    said = [line.getMessage() for line in caplog.records if line.name == "jobs.key_store"]
    assert len([line for line in said if "_keys/aaaaaaaaaaaa.json" in line]) == 1
    with pytest.raises(BadConfiguration, match=r"_keys/aaaaaaaaaaaa\.json"):
        keys.keys()


def test_the_api_says_that_it_lives_while_every_thread_waits() -> None:
    app = FastAPI()
    app.include_router(probes)

    async def ask() -> int:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 0
        with anyio.fail_after(10):
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://localhost"
            ) as http:
                return (await http.get("/healthz")).status_code

    assert anyio.run(ask) == 200


# ---- counted in Redis ----


def test_a_key_sends_a_burst_and_then_its_rate(client: redis.Redis) -> None:
    now = [1_000.0]
    allowance = Allowance(client, clock=lambda: now[0])

    for _ in range(10):
        allowance.take_request("k", 60)
    with pytest.raises(TooManyRequests) as caught:
        allowance.take_request("k", 60)
    assert caught.value.retry_after_s == 1
    allowance.take_request("other", 60)
    now[0] += 1.0
    allowance.take_request("k", 60)
    with pytest.raises(TooManyRequests):
        allowance.take_request("k", 60)


def test_the_servers_clock_is_used_where_none_is_given(client: redis.Redis) -> None:
    allowance = Allowance(client)

    allowance.take_request("k", 6)
    with pytest.raises(TooManyRequests) as caught:
        allowance.take_request("k", 6)
    assert caught.value.retry_after_s in (9, 10)
    (key,) = client.keys("*rate*")
    assert 0 < client.pttl(key) <= 10_001


def test_images_count_once_a_job_and_the_day_ends_at_midnight(client: redis.Redis) -> None:
    now = [DAY_S * 100 - 60.0]
    allowance = Allowance(client, clock=lambda: now[0])

    allowance.spend_images("ann", "one", 60, a_day=100)
    allowance.spend_images("ann", "one", 60, a_day=100)
    allowance.spend_images("bob", "two", 100, a_day=100)
    with pytest.raises(QuotaExceeded, match="today's 100: 40") as caught:
        allowance.spend_images("ann", "three", 41, a_day=100)
    assert caught.value.retry_after_s == 60
    allowance.spend_images("ann", "four", 40, a_day=100)
    now[0] += 60
    allowance.spend_images("ann", "three", 41, a_day=100)
    assert all(client.ttl(key) > 0 for key in client.keys("*day*"))
