"""A pool of renderers that only sleep, behind the real scheduler's loop; and jobs of it."""

import time
from collections.abc import Callable

from benchmarks.fleet import ENGINES
from jobs.catalog import load_catalog
from jobs.recipe import Recipe, RecipeRequest
from jobs.records import LoadTimes
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from scheduler.facts import Facts
from scheduler.loop import Scheduler
from scheduler.pool import Pool, PoolActor

#: What loading takes, and for a renderer of the same base a refit: its process, its libraries and
#: its place on the device are there.
LOAD_S, REFIT_S = 40.0, 10.0
#: Base models that the engines share.
BASES = 5
_LOADED = LoadTimes(
    base_ms=(LOAD_S - REFIT_S) * 1e3, fuse_ms=REFIT_S * 1e3, first_batch_ms=1_500.0
).model_dump_json()


def simulated_recipes() -> dict[str, Recipe]:
    """A real recipe for each engine, by engine key; every fifth has the same base."""
    plain = load_catalog().resolve(RecipeRequest())
    assert plain.accelerator is not None
    found = {}
    for number in range(ENGINES):
        base = plain.base.model_copy(update={"revision": str(number % BASES)})
        accelerator = plain.accelerator.model_copy(update={"weight": 1 + number / ENGINES})
        one = plain.model_copy(update={"base": base, "accelerator": accelerator})
        found[one.engine_key] = one
    return found


class SimulatedScheduler(Scheduler):
    """The real loop; what it observed last can be looked at."""

    seen = Facts(0)

    def observe(self) -> Facts:
        """What the real one observes."""
        self.seen = super().observe()
        return self.seen


def simulated_scheduler(
    queue: ShardQueue, pool: Pool, clock: Callable[[], float] = time.monotonic, drain_s: float = 0.0
) -> SimulatedScheduler:
    """The real loop over a real queue; it knows the recipes, which it would read from the store."""
    settings = Settings(max_renderers=pool.slots(), drain_s=drain_s)
    scheduler = SimulatedScheduler(
        settings, queue, Store.__new__(Store), load_catalog(), pool, clock
    )
    scheduler.recipes.know(simulated_recipes())
    return scheduler


def beat_of(
    name: str,
    engine: str,
    state: str,
    *,
    draining: bool = False,
    refitted: bool = False,
    becomes: str = "",
) -> dict[str, str]:
    """A heartbeat with every field that a real renderer's has."""
    ready_s = f"{REFIT_S if refitted else LOAD_S:g}"
    return {
        "actor": name,
        "engine_key": engine,
        "state": state,
        "error": "",
        "node": "node-17.cluster.internal",
        "pid": "12345",
        "device": "NVIDIA H100 80GB HBM3",
        "load": "" if state == "loading" else _LOADED,
        "ready_s": "" if state == "loading" else ready_s,
        "refit": "1" if refitted else "",
        "becomes": becomes,
        "images": "123456",
        "engine": "tiny",
        "busy": "0.987",
        "memory": "3221225472",
        "draining": "1" if draining else "",
    }


class SimulatedPool(Pool):
    """Where Ray would be: told what to start and to drain, asked who is there."""

    def __init__(
        self,
        size: int,
        on_start: Callable[[str, str], None],
        on_drain: Callable[[str], None],
        on_refit: Callable[[str, str], None] = lambda name, engine: None,
    ) -> None:
        super().__init__(size)
        self._size = size
        self._on_start, self._on_drain, self._on_refit = on_start, on_drain, on_refit
        self.present: dict[str, PoolActor] = {}
        self._count = 0

    def actors(self) -> list[PoolActor]:
        """Every renderer, loading ones included."""
        return list(self.present.values())

    def slots(self) -> int:
        """Its size."""
        return self._size

    def start(self, recipe: Recipe) -> str:
        """One more renderer, which begins to load."""
        self._count += 1
        name = f"renderer-{recipe.engine_key}-{self._count:06d}"
        self.present[name] = PoolActor(name, recipe.engine_key)
        self._on_start(name, recipe.engine_key)
        return name

    def drain(self, name: str, seconds: float | None = None) -> None:
        """It finishes its shard and leaves."""
        self._on_drain(name)

    def refit(self, name: str, recipe: Recipe) -> bool:
        """It finishes its shard and goes on with another engine."""
        self._on_refit(name, recipe.engine_key)
        return True

    def withdraw(self, name: str) -> bool:
        """None waits for a node."""
        return False
