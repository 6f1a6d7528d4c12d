"""The kinds of filters: what turns pictures and prompts into scores."""

import importlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BadConfiguration
from jobs.filters import FilterEntry
from workers.depot import Depot

#: Pictures scored at once. Nets see exactly so many, so that a score depends on no neighbour.
AT_ONCE = 16

Pictures = NDArray[np.uint8]
#: Scores n pictures [n, h, w, 3] that were made of n prompts; NaN where it cannot judge.
Score = Callable[[Pictures, Sequence[str]], Sequence[float] | NDArray[np.floating]]


def load_score(entry: FilterEntry, depot: Depot) -> Score:
    """What scores pictures as the catalog's entry says; raises BadConfiguration."""
    if entry.kind == "judge":
        from workers.tiny.scorer import share_right

        return padded(share_right())
    if entry.kind == "plugin":
        return _plugin(entry.plugin)
    from workers.library_filters import load_net

    return padded(load_net(entry, depot))


def padded(score: Score) -> Score:
    """The same in batches of `AT_ONCE` pictures, the last one filled up with black."""

    def whole(pictures: Pictures, prompts: Sequence[str]) -> NDArray[np.floating]:
        parts = []
        for start in range(0, len(pictures), AT_ONCE):
            some = pictures[start : start + AT_ONCE]
            lack = AT_ONCE - len(some)
            full = np.concatenate([some, np.zeros((lack, *some.shape[1:]), np.uint8)])
            texts = [*prompts[start : start + AT_ONCE], *([""] * lack)]
            parts.append(np.asarray(score(full, texts), dtype=np.float64)[: len(some)])
        return np.concatenate(parts)

    return whole


def _plugin(name: str) -> Score:
    """The function that an operator's `module:attribute` names; a class is called once for it."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BadConfiguration(
            f"the filter {name!r} cannot be imported: {error}",
            where="the catalog's filters",
            remedy="install its package where renderers run, or correct the name",
        ) from error
    made: Score = found() if isinstance(found, type) else found
    if not callable(made):
        raise BadConfiguration(f"{name!r} is nothing to call", where="the catalog's filters")
    return made
