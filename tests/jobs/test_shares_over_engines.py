"""One virtual time for a tenant: what it has on one engine counts on all, within bounds."""

from collections import Counter

import pytest
import redis

from jobs.queue_values import Lease
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Clock, Submit

MINUTE_MS = 60_000


class Pool:
    """Renderers of several engines, which claim one unit and render it at once."""

    def __init__(self, queue: ShardQueue) -> None:
        self.queue = queue
        self.served: Counter[str] = Counter()
        self._count = 0

    def claim(self, engine: str, want: int = 1) -> list[Lease]:
        self._count += 1
        return self.queue.claim("w", f"n{self._count}", engine, want, 600_000)

    def serve(self, engine: str, units: int = 1) -> list[str]:
        """The jobs of the next units of an engine, in order; each is done before the next."""
        jobs = []
        for _ in range(units):
            for lease in self.claim(engine):
                self.queue.done(lease.job_id, lease.unit, lease.token, device_ms=1_000)
                jobs.append(lease.job_id)
        self.served.update(jobs)
        return jobs


@pytest.fixture
def pool(queue: ShardQueue) -> Pool:
    return Pool(queue)


@pytest.fixture
def long(submit: Submit) -> Submit:
    """Submit a long job of single images, a device-second each."""

    def long(job_id: str, tenant: str, engine: str, **settings: object) -> str:
        known: dict[str, object] = {"images": 10_000, "shard_images": 1, "tenant": tenant}
        return submit(job_id, engine_key=engine, **(known | settings))

    return long


def test_a_tenant_on_three_engines_has_one_share(pool: Pool, long: Submit) -> None:
    for number, other in enumerate(["bob", "cid", "dan"]):
        long(f"ann{number}", "ann", f"e{number}")
        long(f"of-{other}", other, f"e{number}")
    for _ in range(60):
        for number in range(3):
            pool.serve(f"e{number}")
    of_ann = sum(count for job, count in pool.served.items() if job.startswith("ann"))
    assert [of_ann, *(pool.served[f"of-{one}"] for one in ("bob", "cid", "dan"))] == [45] * 4


def test_weights_hold_over_engines(pool: Pool, long: Submit) -> None:
    for engine in ("a", "b"):
        long(f"ann-{engine}", "ann", engine, tenant_weight=3.0)
    long("of-bob", "bob", "a")
    long("of-cid", "cid", "b")
    for _ in range(50):
        pool.serve("a")
        pool.serve("b")
    assert [pool.served[one] for one in ("of-bob", "of-cid")] == [20, 20]
    assert pool.served["ann-a"] + pool.served["ann-b"] == 60


def test_what_is_in_flight_elsewhere_counts_too(pool: Pool, long: Submit) -> None:
    long("ann-a", "ann", "a")
    for tenant in ("ann", "bob"):
        long(f"{tenant}-b", tenant, "b")
    leases = pool.claim("a", 30)
    assert pool.serve("b", 31) == ["bob-b"] * 30 + ["ann-b"]
    for lease in leases:
        pool.queue.done(lease.job_id, lease.unit, lease.token, device_ms=1_000)
    assert Counter(pool.serve("b", 20)) == {"ann-b": 10, "bob-b": 10}


def test_what_waits_in_vain_earns_no_credit(pool: Pool, long: Submit, clock: Clock) -> None:
    """Neither on an engine that nobody holds, nor at a priority that is not served."""
    long("of-bob", "bob", "a", priority=9)
    long("nowhere", "ann", "none")
    long("low", "ann", "a", priority=0)
    for _ in range(20):
        clock.forward(MINUTE_MS)
        assert pool.serve("a", 3) == ["of-bob"] * 3
    long("of-ann", "ann", "a", priority=9)
    assert pool.serve("a", 21).count("of-ann") == 11


@pytest.mark.parametrize("minutes", [1, 6])
def test_an_engine_that_nobody_else_wanted_is_not_paid_for_long(
    pool: Pool, long: Submit, clock: Clock, minutes: int
) -> None:
    """Ann has a alone for hours and shares b; when a has ended she is served at b in minutes, or
    after some units of a lane that is slow."""
    long("ann-a", "ann", "a")
    for tenant in ("ann", "bob", "cid"):
        long(f"{tenant}-b", tenant, "b")
    for _ in range(60):
        clock.forward(minutes * MINUTE_MS)
        pool.serve("a", 20)
        pool.serve("b")
    # She has twenty times as much; here she gets nothing but what she began with.
    assert pool.served["ann-b"] <= 2
    pool.queue.state("ann-a", "cancel")
    waited = 0
    while pool.serve("b") != ["ann-b"]:
        clock.forward(minutes * MINUTE_MS)
        waited += 1
    assert waited <= 11
    served = Counter(pool.serve("b", 30))
    assert [served[f"{tenant}-b"] for tenant in ("ann", "bob", "cid")] == [10, 10, 10]


def test_who_comes_from_elsewhere_begins_level(pool: Pool, long: Submit) -> None:
    long("ann-a", "ann", "a")
    long("bob-b", "bob", "b")
    pool.serve("a", 30)
    pool.serve("b", 5)
    long("ann-b", "ann", "b")
    assert pool.serve("b", 21).count("ann-b") == 11


def test_what_is_given_back_elsewhere_is_no_credit(pool: Pool, long: Submit) -> None:
    long("ann-a", "ann", "a")
    for tenant in ("ann", "bob"):
        long(f"{tenant}-b", tenant, "b")
    leases = pool.claim("a", 30)
    assert pool.serve("b", 30) == ["bob-b"] * 30
    for lease in leases:
        pool.queue.fail(lease.job_id, lease.unit, lease.token, "release")
    assert pool.serve("b", 21).count("ann-b") == 11


def test_who_was_away_is_not_charged_for_ever(pool: Pool, long: Submit, clock: Clock) -> None:
    """What ann has at a while she has nothing at b holds her back there for minutes at most."""
    long("ann-a", "ann", "a")
    long("short", "ann", "b", images=1)
    long("other", "bob", "b")
    assert pool.serve("b", 2) == ["short", "other"]
    for _ in range(30):
        clock.forward(MINUTE_MS)
        pool.serve("a", 20)
        pool.serve("b")
    pool.queue.state("ann-a", "cancel")
    long("again", "ann", "b")
    assert "again" in pool.serve("b", 12)


def test_a_cap_that_is_lifted_holds_nobody(pool: Pool, long: Submit) -> None:
    long("first", "ann", "a", tenant_cap=2)
    long("other", "bob", "b")
    assert len(pool.claim("a", 9)) == 2
    assert pool.claim("a") == []
    long("second", "ann", "a", tenant_cap=0)
    assert len(pool.claim("a", 9)) == 9


def test_a_tenant_without_jobs_is_forgotten_after_a_week(
    pool: Pool, long: Submit, client: redis.Redis
) -> None:
    key = pool.queue.key("tenant:ann")
    long("one", "ann", "a", tenant_weight=2.0, tenant_cap=3)
    assert (pool.queue.tenant_weights(), pool.queue.tenant_caps()) == ({"ann": 2.0}, {"ann": 3})
    assert client.ttl(key) == -1
    pool.queue.finish("one", "failed")
    assert 0 < client.ttl(key) <= 7 * 24 * 3600
    assert (pool.queue.tenant_weights(), pool.queue.tenant_caps()) == ({}, {})
    long("two", "ann", "a")
    assert client.ttl(key) == -1


def test_what_one_spent_here_is_never_forgiven(pool: Pool, long: Submit, clock: Clock) -> None:
    """Ann's only unit took a hundred times what was estimated; she is away when that is told."""
    long("short", "ann", "b", images=1)
    long("other", "bob", "b")
    [lease] = pool.claim("b")
    for _ in range(8):
        clock.forward(MINUTE_MS)
        pool.serve("b")
    assert pool.queue.done(lease.job_id, lease.unit, lease.token, device_ms=100_000) == "ok"
    long("again", "ann", "b")
    assert "again" not in pool.serve("b", 80)
    assert "again" in pool.serve("b", 20)
