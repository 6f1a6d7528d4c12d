"""The scheduler's loop: observe, decide, apply. It may die at any time and be started again."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ray.exceptions import RayError
from redis import RedisError

from jobs.catalog import Catalog
from jobs.errors import FewstepError
from jobs.queue_values import QueueJob
from jobs.recipe import Recipe
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job
from jobs.store import Store
from scheduler.chores import Chores
from scheduler.facts import Decision, EngineDemand, Facts, RendererFact
from scheduler.leaving import Leaving
from scheduler.limits import within_limits
from scheduler.measured import Measured
from scheduler.observing import (
    BEAT_FIELDS,
    Beats,
    demand_of,
    ends_soon,
    units_waiting,
    waits,
)
from scheduler.policy import decide, placement_of
from scheduler.pool import Pool, PoolActor
from scheduler.promises import Promises
from scheduler.recipes import Recipes
from scheduler.refits import Refits
from scheduler.sharing import SHARING_FIELDS

log = logging.getLogger(__name__)

PERIOD_S = 0.5
BEAT_S = 2.0
#: A step may take so much of the processor's time until the next; beyond it, steps are rarer.
SHARE = 0.05
#: But never so rare that what a step says of the pool runs out before the next.
LONGEST_S = 5.0


@dataclass
class Scheduler:
    """Decides which engines live and how many renderers each has; `Chores` does the rest.

    It keeps nothing that cannot be seen again: renderers are found by their names in Ray, work by
    its counters in Redis. Only how long an engine has been idle starts anew with it.
    """

    settings: Settings
    queue: ShardQueue
    store: Store
    catalog: Catalog
    pool: Pool
    clock: Callable[[], float] = time.monotonic
    recipes: Recipes = field(init=False)
    leaving: Leaving = field(init=False)
    promises: Promises = field(init=False)
    refits: Refits = field(init=False)
    _busy_at: dict[str, float] = field(default_factory=dict)
    _served_at: dict[str, float] = field(default_factory=dict)
    _told_at: float = float("-inf")
    _working: Mapping[str, int] = field(default_factory=dict)
    _waiting: Mapping[str, int] = field(default_factory=dict)
    #: What renderers said when they were last asked: they beat far less often than we step.
    _beats: Beats = field(default_factory=lambda: Beats.of(()))
    _asked_at: float = float("-inf")
    #: Of tenants, asked as often.
    _weights: Mapping[str, float] = field(default_factory=dict)
    _caps: Mapping[str, int] = field(default_factory=dict)
    _measured: Measured = field(default_factory=Measured)

    def __post_init__(self) -> None:
        def read(tenant: str, job_id: str) -> Recipe:
            return read_job(self.store, self.settings.s3_prefix, tenant, job_id).recipe

        self.recipes = Recipes(read, self.clock)
        self.leaving = Leaving(self.queue, self.pool)
        self.promises, self.refits = Promises(self.clock), Refits(self.clock)

    def run(self, stop: threading.Event) -> None:
        """Step until told to stop; a step that fails is logged and repeated."""
        beats = threading.Thread(target=self._beat, args=(stop,), name="beat", daemon=True)
        beats.start()
        chores = Chores(self.settings, self.queue, self.store, self.catalog)
        threads = chores.start(stop, self.leaving.look)
        heard = False
        while not stop.is_set():
            began = time.thread_time()
            try:
                if not heard:
                    # Who shares a device says so: else each counts whole, and some are sent away.
                    self.pool.hear(self.queue.renderers_of(SHARING_FIELDS))
                    heard = True
                self.step()
            except (FewstepError, RedisError, RayError) as error:
                log.warning("step_failed error=%s", error)
            stop.wait(min(LONGEST_S, max(PERIOD_S, (time.thread_time() - began) / SHARE)))
        self.recipes.close()
        for thread in (beats, *threads):
            thread.join()

    def _beat(self, stop: threading.Event) -> None:
        """Say that a scheduler lives, also while a step waits for a slow store."""
        while not stop.is_set():
            try:
                self.queue.scheduler_beat()
            except (FewstepError, RedisError) as error:
                log.warning("beat_failed error=%s", error)
            stop.wait(BEAT_S)

    def step(self) -> Decision:
        """One round: observe, decide, apply."""
        facts = self.observe()
        self._tell(facts)
        decision = decide(facts)
        self.apply(decision)
        for name in self.leaving.in_vain(facts):
            self.pool.withdraw(name)
        placed = placement_of(facts, decision)
        lost = sorted(engine for engine in placed.wanted if engine not in self.recipes)
        self.queue.place(replace(placed, unreadable=lost))
        return decision

    def _tell(self, facts: Facts) -> None:
        """Let metrics and claims know, now and then, what the pool is like."""
        if self.clock() - self._told_at < BEAT_S:
            return
        self._told_at = self.clock()
        draining = sum(one.draining for one in facts.renderers)
        self.queue.note_pool(
            {"slots": facts.slots, "renderers": len(facts.renderers), "draining": draining}
        )
        self.queue.note_working(self._working, self._waiting)

    def observe(self) -> Facts:
        """What waits, who is there, and how many may be."""
        jobs = within_limits(self.queue, self.queue.open_jobs(), time.time_ns() // 1_000_000)
        beats = self._look()
        actors = [one for one in self.pool.actors() if one.name not in self.leaving.names]
        self.promises.forget({actor.name for actor in actors})
        self.refits.look(actors, beats)
        engines = self.refits.engines(actors, beats)
        self._measured.take(beats, self._base_of)
        self._working = beats.working
        demands = self._demands(jobs, Counter(engines.values()), beats)
        self._waiting = units_waiting(demands, jobs)
        renderers = [self._fact(actor, engines[actor.name], beats) for actor in actors]
        promised, freed = self.promises.slots(renderers)
        settings = self.settings
        return Facts(
            self.pool.slots(),
            demands,
            renderers,
            settings.idle_ms,
            drain_s=settings.drain_s,
            least=settings.engine_least,
            most=settings.engine_most,
            promised=promised,
            freed=freed,
            weights=self._weights,
            caps=self._caps,
        )

    def _fact(self, actor: PoolActor, engine_key: str, beats: Beats) -> RendererFact:
        here = not self.refits.told(actor.name)
        return RendererFact(
            actor.name,
            engine_key,
            draining=actor.name in beats.draining or self.promises.told(actor.name),
            idle=here and actor.name in beats.idle,
            ready=here and actor.name in beats.ready,
            share=actor.share,
        )

    def _look(self) -> Beats:
        if self.clock() - self._asked_at >= BEAT_S:
            self._beats = Beats.of(self.queue.renderers_of(BEAT_FIELDS))
            self._weights, self._caps = self.queue.tenant_weights(), self.queue.tenant_caps()
            self._asked_at = self.clock()
        return self._beats

    def apply(self, decision: Decision) -> None:
        """Start, drain and refit as decided."""
        self.promises.note(decision)
        for name in decision.drain:
            self.pool.drain(name)
            self.queue.note_pool_change("drained", name)
        for name, engine_key in decision.refit.items():
            recipe = self.recipes.get(engine_key)
            if recipe is not None and self.pool.refit(name, recipe):
                self.refits.note(name, engine_key)
                self.queue.note_pool_change("refitted", name)
        for engine_key, count in decision.start.items():
            recipe = self.recipes.get(engine_key)
            if recipe is None:
                # Forgotten between two steps: it is read again.
                continue
            for _ in range(count):
                self.queue.note_pool_change("started", self.pool.start(recipe))

    def _demands(
        self, jobs: list[QueueJob], held: Mapping[str, int], beats: Beats
    ) -> list[EngineDemand]:
        """What each engine has to do; engines that only hold renderers are listed as idle."""
        by_engine: dict[str, list[QueueJob]] = {key: [] for key in held}
        for job in jobs:
            if waits(job):
                by_engine.setdefault(job.engine_key, []).append(job)
        self.recipes.look(by_engine)
        self._forget(by_engine, jobs)
        parts = self.queue.parts_waiting(
            [job.job_id for job in jobs if ends_soon(job, beats.working.get(job.engine_key, 0))]
        )
        demands = []
        for key, own in sorted(by_engine.items()):
            demand = self._priced(demand_of(key, own, parts))
            if key not in self.recipes:
                # It cannot be started: what is there of it stays, and it takes no slot.
                demand = replace(demand, most=held.get(key, 0))
            # While it loads it has not been served; one that cannot load had its turn.
            served = not own or any(job.units_in_flight for job in own) or key in beats.broken
            demands.append(self._timed(demand, served))
        return demands

    def _priced(self, demand: EngineDemand) -> EngineDemand:
        """The demand with what it costs to have its engine."""
        key, base = demand.engine_key, self._base_of(demand.engine_key)
        return replace(
            demand,
            base_key=base,
            load_s=self._measured.load_s(key),
            refit_s=self._measured.refit_s(key, base),
            share=self.pool.share_of(key),
        )

    def _base_of(self, engine_key: str) -> str:
        """The base, and the kind of node that its model asks for; "" for an engine not known."""
        recipe = self.recipes.get(engine_key)
        entry = self.catalog.models.get(recipe.model) if recipe is not None else None
        base = self.recipes.base_of(engine_key)
        kind = (entry.gpu, entry.node_memory) if entry is not None else (None, None)
        return f"{base} {kind}" if any(kind) else base

    def _forget(self, engines: Mapping[str, Sequence[QueueJob]], jobs: list[QueueJob]) -> None:
        """Of engines that are neither wanted nor there, keep no more than what is of use."""
        for memory in (self._busy_at, self._served_at):
            for key in memory.keys() - engines.keys():
                del memory[key]
        self._measured.forget(engines.keys(), {self._base_of(key) for key in engines})
        self.recipes.forget(engines.keys(), {job.job_id for job in jobs})

    def _timed(self, demand: EngineDemand, served: bool) -> EngineDemand:
        """The demand with how long its engine has been idle, or was not served."""
        now, key = self.clock(), demand.engine_key
        if demand.units or key not in self._busy_at:
            self._busy_at[key] = now
        if served or key not in self._served_at:
            self._served_at[key] = now
        return replace(
            demand,
            idle_ms=round((now - self._busy_at[key]) * 1e3),
            starved_ms=round((now - self._served_at[key]) * 1e3),
        )
