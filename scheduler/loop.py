"""The scheduler's loop: observe, decide, apply. It may die at any time and be started again."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ray.exceptions import RayError
from redis import RedisError

from jobs.catalog import Catalog
from jobs.errors import DamagedJob, FewstepError, NotFound
from jobs.queue_values import QueueJob
from jobs.recipe import Recipe
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job
from jobs.store import Store
from scheduler.chores import Chores
from scheduler.policy import Decision, EngineDemand, Facts, RendererFact, decide
from scheduler.pool import Pool

log = logging.getLogger(__name__)

PERIOD_S = 0.5
BEAT_S = 2.0


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
    _recipes: dict[str, Recipe] = field(default_factory=dict)
    _busy_at: dict[str, float] = field(default_factory=dict)
    _served_at: dict[str, float] = field(default_factory=dict)
    _told_at: float = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Step until told to stop; a step that fails is logged and repeated."""
        beats = threading.Thread(target=self._beat, args=(stop,), name="beat", daemon=True)
        beats.start()
        chores = Chores(self.settings, self.queue, self.store, self.catalog).start(stop)
        while not stop.is_set():
            try:
                self.step()
            except (FewstepError, RedisError, RayError) as error:
                log.warning("step_failed error=%s", error)
            stop.wait(PERIOD_S)
        for thread in (beats, *chores):
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
        self.queue.reap()
        facts = self.observe()
        self._tell(facts)
        decision = decide(facts)
        self.apply(decision)
        return decision

    def _tell(self, facts: Facts) -> None:
        """Let the metrics know, now and then, what the pool is like."""
        if self.clock() - self._told_at < BEAT_S:
            return
        self._told_at = self.clock()
        draining = sum(one.draining for one in facts.renderers)
        self.queue.note_pool(
            {"slots": facts.slots, "renderers": len(facts.renderers), "draining": draining}
        )

    def observe(self) -> Facts:
        """What waits, who is there, and how many may be."""
        jobs = self.queue.open_jobs()
        beats = {record.info.get("actor", ""): record.info for record in self.queue.renderers()}
        actors = self.pool.actors()
        demands = self._demands(jobs, {actor.engine_key for actor in actors})
        renderers = [
            RendererFact(
                actor.name,
                actor.engine_key,
                draining=bool(beats.get(actor.name, {}).get("draining")),
            )
            for actor in actors
        ]
        return Facts(self.pool.slots(), demands, renderers, self.settings.idle_ms)

    def apply(self, decision: Decision) -> None:
        """Start and drain as decided."""
        for name in decision.drain:
            self.pool.drain(name)
        for engine_key, count in decision.start.items():
            recipe = self._recipes.get(engine_key)
            if recipe is None:
                # None of its jobs could be read; the log says why.
                continue
            for _ in range(count):
                self.pool.start(recipe)

    def _demands(self, jobs: list[QueueJob], held: set[str]) -> list[EngineDemand]:
        """What each engine has to do; engines that only hold renderers are listed as idle."""
        by_engine: dict[str, list[QueueJob]] = {key: [] for key in held}
        for job in jobs:
            if job.state == "run" or job.units_in_flight:
                by_engine.setdefault(job.engine_key, []).append(job)
        for memory in (self._busy_at, self._served_at):
            for key in memory.keys() - by_engine.keys():
                del memory[key]
        demands = []
        for key, own in sorted(by_engine.items()):
            self._learn(key, own)
            demands.append(self._timed(_demand(key, own), key in held))
        return demands

    def _timed(self, demand: EngineDemand, held: bool) -> EngineDemand:
        """The demand with how long its engine has been idle, or without a renderer."""
        now, key = self.clock(), demand.engine_key
        if demand.units or key not in self._busy_at:
            self._busy_at[key] = now
        if held or key not in self._served_at:
            self._served_at[key] = now
        return replace(
            demand,
            idle_ms=round((now - self._busy_at[key]) * 1e3),
            starved_ms=round((now - self._served_at[key]) * 1e3),
        )

    def _learn(self, engine_key: str, jobs: list[QueueJob]) -> None:
        """Read the recipe that an engine key stands for, once, from one of its jobs."""
        for job in jobs if engine_key not in self._recipes else ():
            try:
                spec = read_job(self.store, self.settings.s3_prefix, job.tenant, job.job_id)
            except (NotFound, DamagedJob) as error:
                # One job whose file is gone must not hold up everybody else's.
                log.error("job_unreadable job=%s error=%s", job.job_id, error)
                continue
            self._recipes[engine_key] = spec.recipe
            return


def _demand(engine_key: str, jobs: list[QueueJob]) -> EngineDemand:
    waiting = [job for job in jobs if job.state == "run"]
    return EngineDemand(
        engine_key,
        units_waiting=sum(-(-job.images_waiting // job.shard_images) for job in waiting),
        units_in_flight=sum(job.units_in_flight for job in jobs),
        images_waiting=sum(job.images_waiting for job in waiting),
        priority=max((job.priority for job in waiting), default=0),
    )
