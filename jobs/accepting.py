"""Rows of a job with `accept` that have fewer pictures than were wanted."""

from bisect import bisect_right
from collections.abc import Iterable, Set


def rows_short(failed: Set[int], missing: Iterable[range]) -> int:
    """How many rows lack a picture: those in `failed`, and those of images in no shard.

    `missing`: runs of rows, which may overlap: more repeats of a row lie elsewhere.
    """
    runs = list[range]()
    for run in sorted(missing, key=lambda one: one.start):
        first = max(run.start, runs[-1].stop if runs else 0)
        if first < run.stop:
            runs.append(range(first, run.stop))
    stops = [run.stop for run in runs]

    def is_missing(row: int) -> bool:
        at = bisect_right(stops, row)
        return at < len(runs) and row in runs[at]

    return sum(map(len, runs)) + sum(not is_missing(row) for row in failed)
