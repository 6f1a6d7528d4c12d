"""Recipes: what an engine key stands for, read from the store beside the loop, not in it."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

from jobs.errors import DamagedJob, FewstepError, NotFound
from jobs.queue_values import QueueJob
from jobs.recipe import Recipe

log = logging.getLogger(__name__)

#: A step waits this long for recipes it has just asked for: a store that hangs holds nobody up.
PATIENCE_S: Final = 0.25
#: What could not be read is tried again after so long, then twice as long, and so on to the last.
AGAIN_S: Final = 2.0
SELDOM_S: Final = 120.0
#: Recipes of engines that nobody uses: so many are remembered.
KEPT: Final = 1_000
#: Jobs of one engine that are tried in one go.
_JOBS = 16
#: Engines that are read at a time.
_READERS = 4

#: Tenant and id of a job -> its recipe; raises what `jobs.specs.read_job` raises.
Read = Callable[[str, str], Recipe]


@dataclass
class _Trouble:
    """What could not be read: how often it was tried, and when it may be again."""

    tries: int
    again_at: float


@dataclass
class _Answer:
    """What one reading of an engine's jobs brought."""

    recipe: Recipe | None = None
    #: Job -> why it does not read.
    damaged: dict[str, str] = field(default_factory=dict)
    #: The store did not answer: that says nothing of a job.
    away: str = ""


class Recipes:
    """Recipes by engine key. All methods are for the loop's thread; readers are its own."""

    def __init__(self, read: Read, clock: Callable[[], float]) -> None:
        self._read, self._clock = read, clock
        self._known: dict[str, Recipe] = {}
        self._bases: dict[str, str] = {}
        self._asked: dict[str, Future[_Answer]] = {}
        #: By job or, where the store is away, by engine.
        self._trouble: dict[str, _Trouble] = {}
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="recipes")

    def __contains__(self, engine_key: object) -> bool:
        return engine_key in self._known

    def get(self, engine_key: str) -> Recipe | None:
        """The engine's recipe; None where none of its jobs was read yet."""
        return self._known.get(engine_key)

    def know(self, recipes: Mapping[str, Recipe]) -> None:
        """Take these as read."""
        self._known |= recipes

    def base_of(self, engine_key: str) -> str:
        """The key of its base, worked out once: it is a digest. Empty for an engine not known."""
        recipe = self._known.get(engine_key)
        if recipe is not None and engine_key not in self._bases:
            self._bases[engine_key] = recipe.base_key
        return self._bases.get(engine_key, "")

    def look(self, engines: Mapping[str, Sequence[QueueJob]]) -> None:
        """Take up what was read; ask for the recipes of engines that are not known, from one of
        their jobs each. Waits for fresh questions alone, and for `PATIENCE_S` at most."""
        self._take()
        fresh = []
        for key, jobs in engines.items():
            if key in self._known or key in self._asked or not self._due(key):
                continue
            due = [(job.tenant, job.job_id) for job in jobs if self._due(job.job_id)][:_JOBS]
            if due:
                self._asked[key] = self._readers.submit(self._answer, due)
                fresh.append(self._asked[key])
        if fresh:
            wait(fresh, PATIENCE_S)
            self._take()

    def forget(self, engines: Collection[str], jobs: Collection[str]) -> None:
        """Of engines and jobs that are none of these, keep what was used last."""
        unused = [key for key in self._known if key not in engines]
        for key in unused[: max(0, len(self._known) - KEPT)]:
            del self._known[key]
            self._bases.pop(key, None)
        for key in [key for key in self._trouble if key not in engines and key not in jobs]:
            del self._trouble[key]

    def close(self) -> None:
        """Ask nobody any more; a reading that hangs ends by itself."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _due(self, key: str) -> bool:
        trouble = self._trouble.get(key)
        return trouble is None or self._clock() >= trouble.again_at

    def _answer(self, jobs: Sequence[tuple[str, str]]) -> _Answer:
        """Runs on a reader's thread."""
        answer = _Answer()
        for tenant, job_id in jobs:
            try:
                answer.recipe = self._read(tenant, job_id)
                return answer
            except (NotFound, DamagedJob) as error:
                answer.damaged[job_id] = str(error)
            except FewstepError as error:
                answer.away = str(error)
                return answer
        return answer

    def _take(self) -> None:
        for key in [key for key, asked in self._asked.items() if asked.done()]:
            answer = self._asked.pop(key).result()
            for job_id, why in answer.damaged.items():
                if not self._failed(job_id):
                    # One job whose file is gone must not hold up everybody else's.
                    log.error("job_unreadable job=%s error=%s", job_id, why)
            if answer.away:
                self._failed(key)
                log.warning("recipe_not_read engine=%s error=%s", key, answer.away)
            if answer.recipe is not None:
                self._known[key] = answer.recipe
                self._trouble.pop(key, None)

    def _failed(self, key: str) -> int:
        """Note one more try that brought nothing; how many there were before."""
        tries = self._trouble[key].tries if key in self._trouble else 0
        pause = min(SELDOM_S, AGAIN_S * 2.0 ** min(tries, 16))
        self._trouble[key] = _Trouble(tries + 1, self._clock() + pause)
        return tries
