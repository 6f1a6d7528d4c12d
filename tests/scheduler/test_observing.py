"""From the queue to the policy's facts: work by tenant, loading times, who has been served."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from jobs.recipe import Recipe, RecipeRequest
from jobs.records import LoadTimes
from jobs.redis_client import control_client
from jobs.rows import Row
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from scheduler import loop, recipes
from scheduler.facts import LOAD_S, Decision, Facts
from scheduler.loop import BEAT_S, Scheduler
from scheduler.pool import PoolActor
from scheduler.promises import TOLD_S
from tests.jobs.conftest import request_for
from tests.rendered_jobs import CATALOG, PREFIX, TENANT, Workshop

ROWS = [Row(prompt=f"prompt {n}") for n in range(10)]


@dataclass
class Placed:
    """A pool that is what the test says; nothing runs in it."""

    there: list[PoolActor] = field(default_factory=list)
    drained: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    size: int = 2

    def actors(self) -> list[PoolActor]:
        return self.there

    def slots(self) -> int:
        return self.size

    def start(self, recipe: Recipe) -> str:
        self.started.append(recipe.engine_key)
        return f"renderer-{recipe.engine_key}-{len(self.started)}"

    def drain(self, name: str) -> None:
        self.drained.append(name)

    def withdraw(self, name: str) -> bool:
        return False


@pytest.fixture
def shop(redis_url: str, store: Store) -> Iterator[Workshop]:
    with control_client(redis_url) as client:
        yield Workshop(ShardQueue(client), store)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is slow because the machine is busy is waited for."""
    monkeypatch.setattr(recipes, "PATIENCE_S", 30)


@pytest.fixture
def now() -> list[float]:
    return [1_000.0]


@pytest.fixture
def pool() -> Placed:
    return Placed()


@pytest.fixture
def scheduler(shop: Workshop, pool: Placed, now: list[float]) -> Scheduler:
    settings = Settings(s3_prefix=PREFIX, drain_s=60, engine_least=1, engine_most=7)
    return Scheduler(settings, shop.queue, shop.store, CATALOG, pool, lambda: now[0])  # type: ignore[arg-type]


def test_work_is_by_tenant_and_priority_with_what_is_in_flight(
    shop: Workshop, scheduler: Scheduler, now: list[float]
) -> None:
    job = shop.submit(ROWS, shard_images=4)
    shop.submit(ROWS, shard_images=5, priority=9)
    shop.submit(ROWS, shard_images=5, priority=9)
    paused = shop.submit(ROWS, shard_images=5)
    shop.queue.state(paused.id, "pause")
    [lease] = shop.claim(job)
    shop.queue.done(lease.job_id, lease.unit, lease.token, device_ms=5_000)
    [held] = shop.claim(job)
    facts = scheduler.observe()

    [demand] = facts.demands
    # The first claims went to priority 9: five images that cost a second each, five in flight.
    cost = shop.record(job.id).unit_cost
    assert lease.job_id == held.job_id != job.id
    found = {one.priority: one for one in demand.work}
    assert {(one.tenant, one.units) for one in demand.work} == {(TENANT, 3)}
    assert found[4].cost_s == pytest.approx(10 * cost)
    assert found[9].cost_s == pytest.approx(5 * 1.0 + 10 * cost)
    assert demand.base_key == job.recipe.base_key
    assert demand.load_s == LOAD_S
    assert (facts.slots, facts.drain_s, facts.least, facts.most) == (2, 60, 1, 7)
    assert (facts.weights, facts.caps) == ({TENANT: 1.0}, {})
    shop.queue.submit(request_for(tenant="bob", tenant_cap=3, tenant_weight=2.0))
    now[0] += BEAT_S
    assert scheduler.observe().caps == {"bob": 3}


def test_a_job_at_its_limit_is_stopped_and_wants_nothing(
    shop: Workshop, scheduler: Scheduler
) -> None:
    job = shop.submit(ROWS, shard_images=5, max_device_seconds=0.01)
    assert len(scheduler.observe().demands) == 1
    shop.render(job, units=1)
    assert list(scheduler.observe().demands) == []
    record = shop.record(job.id)
    assert (record.state, record.limit) == ("stop", "max_device_seconds")


def test_loading_costs_what_renderers_measured_also_when_they_are_gone(
    shop: Workshop, scheduler: Scheduler
) -> None:
    job = shop.submit(ROWS)
    load = LoadTimes(find_ms=500, base_ms=7_500, fuse_ms=1_000, device_ms=1_000)
    about = {"engine_key": job.recipe.engine_key, "load": load.model_dump_json()}
    shop.queue.heartbeat("w", about)
    scheduler.observe()
    shop.queue.leave("w")
    [demand] = scheduler.observe().demands
    assert demand.load_s == 10.0


def starved_ms(facts: Facts) -> int:
    [demand] = facts.demands
    return demand.starved_ms


def test_an_engine_is_served_when_it_renders_not_when_it_loads(
    shop: Workshop, scheduler: Scheduler, pool: Placed, now: list[float]
) -> None:
    """Else one that was let in for its age would be sent away while it loads."""
    job = shop.submit(ROWS)
    key = job.recipe.engine_key
    assert starved_ms(scheduler.observe()) == 0
    now[0] += 300
    pool.there = [PoolActor(f"renderer-{key}-1", key)]
    shop.queue.heartbeat("w", {"actor": f"renderer-{key}-1", "state": "loading", "load": ""})
    assert starved_ms(scheduler.observe()) == 300_000
    [lease] = shop.claim(job)
    assert starved_ms(scheduler.observe()) == 0
    shop.queue.fail(lease.job_id, lease.unit, lease.token, "release")
    now[0] += 10
    assert starved_ms(scheduler.observe()) == 10_000
    # Who cannot be loaded had its turn.
    shop.queue.heartbeat("w", {"engine_key": key, "state": "broken", "load": ""})
    assert starved_ms(scheduler.observe()) == 10_000, "asked more often than renderers beat"
    now[0] += BEAT_S
    assert starved_ms(scheduler.observe()) == 0


def test_who_drains_or_has_nothing_in_hand_is_known(
    shop: Workshop, scheduler: Scheduler, pool: Placed
) -> None:
    pool.there = [PoolActor(name, "engine") for name in ("a", "b", "c")]
    shop.queue.heartbeat("wa", {"actor": "a", "state": "idle", "draining": ""})
    shop.queue.heartbeat("wb", {"actor": "b", "state": "rendering", "draining": "1"})
    facts = scheduler.observe()
    assert [(one.name, one.idle, one.draining) for one in facts.renderers] == [
        ("a", True, False),
        ("b", False, True),
        ("c", False, False),
    ]
    [demand] = facts.demands
    assert (demand.engine_key, demand.units) == ("engine", 0)


def test_who_was_told_to_drain_counts_as_draining_before_its_next_beat(
    shop: Workshop, scheduler: Scheduler, pool: Placed, now: list[float]
) -> None:
    """Else another one would be drained for the same slot at every step until then."""
    pool.there = [PoolActor("a", "engine")]
    shop.queue.heartbeat("wa", {"actor": "a", "state": "idle", "draining": ""})
    assert [one.draining for one in scheduler.observe().renderers] == [False]
    scheduler.apply(Decision({}, ("a",)))
    assert pool.drained == ["a"]
    assert [one.draining for one in scheduler.observe().renderers] == [True]
    now[0] += TOLD_S + 1
    assert [one.draining for one in scheduler.observe().renderers] == [False]


def test_a_slot_that_is_freed_for_an_engine_is_promised_to_it_until_it_was_offered(
    shop: Workshop, scheduler: Scheduler, pool: Placed, now: list[float]
) -> None:
    pool.there = [PoolActor("a", "engine"), PoolActor("b", "engine")]
    shop.queue.heartbeat("wa", {"actor": "a", "state": "rendering", "draining": ""})
    assert scheduler.observe().promised == {}
    scheduler.apply(Decision({}, ("a", "b"), heirs={"a": "new", "b": "other"}))
    assert scheduler.observe().promised == {"new": 1, "other": 1}
    shop.queue.heartbeat("wa", {"actor": "a", "state": "rendering", "draining": "1"})
    now[0] += TOLD_S + 1
    # One finishes its shard; the other has forgotten that it was told.
    assert scheduler.observe().promised == {"new": 1}
    pool.there = []
    found = scheduler.observe()
    assert (found.promised, found.freed) == ({}, {"new": 1})
    found = scheduler.observe()
    assert (found.promised, found.freed) == ({}, {})


def test_parts_of_a_divided_shard_are_work_for_as_many_renderers(
    shop: Workshop, scheduler: Scheduler
) -> None:
    job = shop.submit(ROWS, repeats=16, shard_images=160)
    key = job.recipe.engine_key
    shop.queue.note_working({key: 5})
    for number in range(5):
        shop.queue.heartbeat(f"w{number}", {"engine_key": key, "state": "idle", "load": ""})
    [lease] = shop.claim(job)
    assert lease.images < 160, "its last shard was not divided"
    waiting = shop.queue.parts_waiting([job.id])[job.id]
    assert waiting > 1
    [demand] = scheduler.observe().demands
    assert demand.units == waiting + 1
    # What claims are told: nothing more is divided while these wait.
    scheduler.step()
    told = shop.queue._client.hget(shop.queue.key("working"), key)
    assert told == f"5|{waiting}"
    assert demand.cost_s == pytest.approx(160 * shop.record(job.id).unit_cost)


def test_an_engine_of_which_no_job_reads_takes_no_slot(
    shop: Workshop, scheduler: Scheduler, pool: Placed
) -> None:
    damaged = shop.submit(ROWS, shard_images=1, priority=9)
    whole = shop.submit(ROWS, shard_images=1, recipe=RecipeRequest(accelerator="none"))
    shop.store.put(shop.layout(damaged).job, b"{}")
    pool.size = 1
    scheduler.step()
    assert pool.started == [whole.recipe.engine_key]
    placed = shop.queue.placement()
    assert placed is not None
    assert placed.wanted == {damaged.recipe.engine_key: 0, whole.recipe.engine_key: 1}
    assert list(placed.unreadable) == [damaged.recipe.engine_key]


def test_what_is_there_of_such_an_engine_stays(
    shop: Workshop, scheduler: Scheduler, pool: Placed
) -> None:
    """The store is away just after a restart: nobody at work is sent home for it."""
    job = shop.submit(ROWS)
    shop.store.put(shop.layout(job).job, b"{}")
    key = job.recipe.engine_key
    pool.there = [PoolActor(f"renderer-{key}-1", key)]
    assert scheduler.step() == Decision()


def test_what_loading_took_is_not_remembered_for_ever(
    shop: Workshop, scheduler: Scheduler, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "KEPT", 2)
    load = LoadTimes(base_ms=1_000).model_dump_json()
    for number in range(5):
        now[0] += BEAT_S
        shop.queue.heartbeat("w", {"engine_key": f"engine-{number}", "load": load})
        scheduler.observe()
    job = shop.submit(ROWS)
    shop.queue.leave("w")
    scheduler.observe()
    assert len(scheduler._loads) == 2
    assert job.recipe.engine_key not in scheduler._loads
