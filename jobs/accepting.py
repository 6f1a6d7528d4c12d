"""Rows of a job with `accept` that have fewer pictures than were wanted."""

from collections.abc import Iterable, Set


def rows_short(failed: Set[int], missing: Iterable[tuple[int, int]], repeats: int) -> int:
    """How many rows lack a picture: those in `failed`, and those of images in no shard.

    `missing`: runs of images, first and stop, in order; `repeats`: images of each row.
    """
    count, seen = 0, 0
    left = set(failed)
    for first, stop in missing:
        rows = range(max(seen, first // repeats), (stop - 1) // repeats + 1)
        count += len(rows)
        left = {row for row in left if row not in rows}
        seen = max(seen, rows.stop)
    return count + len(left)
