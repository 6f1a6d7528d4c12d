"""A filter on its thread: loaded at its first call, and asked for one number a picture."""

from collections.abc import Callable, Sequence

import numpy as np

from jobs.errors import FewstepError, Unreachable
from workers.filter_calls import BoundedCalls, Overdue
from workers.filter_kinds import Pictures, Score

#: Loading may take so long: weights may have to be fetched, and read from a slow disk.
LOAD_S = 900.0


class Miscounted(ValueError):
    """It answered, and not with one number for each picture."""


#: What says nothing of one picture among several: each alone would come to the same.
ALIKE = (Overdue, Miscounted, FewstepError)


class Loaded:
    """A filter; loading it is the first thing that happens on its thread."""

    def __init__(self, calls: BoundedCalls, load: Callable[[], Score]) -> None:
        self._calls = calls
        self._load = load
        self._score: Score | None = None
        self._broken = ""

    def scores(self, pictures: Pictures, prompts: Sequence[str]) -> list[float | None]:
        """A score for each, None where it cannot judge; raises what the filter raises."""
        if self._broken:
            raise Overdue(self._broken)
        if self._score is None:
            self._score = self._loaded()
        score = self._score
        found = np.asarray(self._calls.call(lambda: score(pictures, prompts)), dtype=np.float64)
        if found.shape != (len(prompts),):
            raise Miscounted(f"it gave {found!r} for {len(prompts)} pictures"[:300])
        if np.isinf(found).any():
            raise ValueError(f"it gave {found!r}, which is no score"[:300])
        return [None if np.isnan(one) else float(one) for one in found]

    def _loaded(self) -> Score:
        try:
            made: Score = self._calls.call(self._load, LOAD_S)
        except (Unreachable, Overdue):
            # A store that is away comes back, a slow disk answers: a later batch asks again.
            raise
        except Exception as error:
            # The next batch would wait for the same end.
            self._broken = f"it could not be loaded: {error}"
            raise
        return made
