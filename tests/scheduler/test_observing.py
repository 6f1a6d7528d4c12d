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
from scheduler import measured, recipes
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
    refitted: dict[str, str] = field(default_factory=dict)
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

    def refit(self, name: str, recipe: Recipe) -> bool:
        self.refitted[name] = recipe.engine_key
        return name in {one.name for one in self.there}

    def share_of(self, engine_key: str) -> float:
        return 1.0

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
    monkeypatch.setattr(measured, "KEPT", 2)
    load = LoadTimes(base_ms=1_000).model_dump_json()
    for number in range(5):
        now[0] += BEAT_S
        shop.queue.heartbeat("w", {"engine_key": f"engine-{number}", "load": load})
        scheduler.observe()
    job = shop.submit(ROWS)
    shop.queue.leave("w")
    scheduler.observe()
    assert len(scheduler._measured._loads) == 2
    assert job.recipe.engine_key not in scheduler._measured._loads


def engine_of(facts: Facts) -> list[tuple[str, bool, bool]]:
    return [(one.engine_key, one.idle, one.ready) for one in facts.renderers]


def test_who_is_refitted_counts_as_what_it_becomes_until_it_says_what_it_is(
    shop: Workshop, scheduler: Scheduler, pool: Placed, now: list[float]
) -> None:
    """Else the next steps would refit another one for the same work, or drain this one."""
    first = shop.submit(ROWS)
    other = shop.submit(ROWS, recipe=RecipeRequest(accelerator="none"))
    x, y = first.recipe.engine_key, other.recipe.engine_key
    about = {"actor": "a", "engine_key": x, "state": "idle", "ready_s": "9"}
    pool.there, pool.size = [PoolActor("a", x)], 1
    shop.queue.heartbeat("a.1", about)
    assert engine_of(scheduler.observe()) == [(x, True, True)]
    scheduler.apply(Decision(refit={"a": y, "gone": y}))
    assert pool.refitted == {"a": y, "gone": y}
    assert engine_of(scheduler.observe()) == [(y, False, False)]
    assert [one.what for one in shop.queue.pool_changes(9)] == ["refitted"]

    # It finishes what it holds, for longer than a word is believed without an answer.
    for _ in range(3):
        now[0] += TOLD_S - 1
        shop.queue.heartbeat("a.1", about | {"state": "rendering", "becomes": y})
        assert engine_of(scheduler.observe()) == [(y, False, False)]
    assert scheduler._working == {}, "nobody claims units of either"

    now[0] += BEAT_S
    shop.queue.leave("a.1")
    assert engine_of(scheduler.observe()) == [(y, False, False)], "between two names"
    shop.queue.heartbeat("a.2", about | {"engine_key": y, "state": "loading", "ready_s": ""})
    now[0] += BEAT_S
    assert engine_of(scheduler.observe()) == [(y, False, False)]
    shop.queue.heartbeat("a.2", about | {"engine_key": y, "refit": "1", "ready_s": "1.5"})
    now[0] += BEAT_S
    assert engine_of(scheduler.observe()) == [(y, True, True)]
    # It died; Ray starts it with what it was made with, while its last beat is still known.
    shop.queue.heartbeat("a.3", about | {"state": "starting", "ready_s": ""})
    now[0] += BEAT_S
    assert engine_of(scheduler.observe()) == [(x, False, False)]


def test_who_never_heard_that_it_is_to_become_another_is_told_again(
    shop: Workshop, scheduler: Scheduler, pool: Placed, now: list[float]
) -> None:
    pool.there = [PoolActor("a", "x")]
    about = {"actor": "a", "engine_key": "x", "state": "idle", "ready_s": "9"}
    shop.queue.heartbeat("a.1", about)
    y = shop.submit(ROWS).recipe.engine_key
    scheduler.observe()
    scheduler.apply(Decision(refit={"a": y}))
    now[0] += TOLD_S + 1
    assert engine_of(scheduler.observe()) == [("x", True, True)]


def test_a_scheduler_that_was_started_again_learns_it_from_heartbeats(
    shop: Workshop, scheduler: Scheduler, pool: Placed
) -> None:
    pool.there = [PoolActor(name, "x") for name in ("a", "b", "c")]
    shop.queue.heartbeat("a.1", {"actor": "a", "engine_key": "x", "state": "idle"})
    shop.queue.heartbeat("b.1", {"actor": "b", "engine_key": "y", "state": "idle"})
    shop.queue.heartbeat("c.1", {"actor": "c", "engine_key": "x", "becomes": "z"})
    facts = scheduler.observe()
    assert not any(one.ready for one in facts.renderers), "none says that it knows of refits"
    assert [one.engine_key for one in facts.renderers] == ["x", "y", "z"]
    assert [one.engine_key for one in facts.demands] == ["x", "y", "z"]


def test_a_load_counts_with_its_process_and_a_refit_for_all_engines_of_its_base(
    shop: Workshop, scheduler: Scheduler, now: list[float]
) -> None:
    job = shop.submit(ROWS)
    plain = shop.submit(ROWS, recipe=RecipeRequest(accelerator="none"))
    load = LoadTimes(cache_ms=2_000, device_ms=1_000).model_dump_json()
    about = {"actor": "a", "engine_key": job.recipe.engine_key, "load": load}

    def costs() -> dict[str, tuple[float, float]]:
        now[0] += BEAT_S
        return {one.engine_key: (one.load_s, one.refit_s) for one in scheduler.observe().demands}

    keys = (job.recipe.engine_key, plain.recipe.engine_key)
    assert costs() == dict.fromkeys(keys, (LOAD_S, LOAD_S))
    # Until one was measured: what of a load a refit does too.
    shop.queue.heartbeat("a.1", about | {"ready_s": "14.5"})
    assert costs() == {keys[0]: (14.5, 3.0), keys[1]: (LOAD_S, 3.0)}
    shop.queue.heartbeat("a.1", about | {"ready_s": "2.5", "refit": "1", "engine_key": keys[1]})
    assert costs() == {keys[0]: (14.5, 2.5), keys[1]: (LOAD_S, 2.5)}
    # Never more than a load.
    shop.queue.heartbeat("a.1", about | {"ready_s": "20", "refit": "1", "engine_key": keys[1]})
    assert costs() == {keys[0]: (14.5, 14.5), keys[1]: (LOAD_S, 20.0)}


def test_engines_of_models_that_ask_for_other_nodes_share_no_base(
    shop: Workshop, scheduler: Scheduler
) -> None:
    """The same weights under two names of the catalog, one of them for a kind of GPU."""
    job = shop.submit(ROWS)
    assert scheduler.observe().demands[0].base_key == job.recipe.base_key
    entry = CATALOG.models["tiny"].model_copy(update={"gpu": "A100"})
    scheduler.catalog = CATALOG.model_copy(update={"models": {**CATALOG.models, "tiny": entry}})
    assert scheduler.observe().demands[0].base_key not in ("", job.recipe.base_key)
