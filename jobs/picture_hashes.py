"""The perceptual hashes of a dataset's pictures, as their rows have them."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs.filter_columns import PHASH
from jobs.filters import JobFilter
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.store import Store

#: Of each picture: its image, its key as a number, its hash, which of the units it is in, and
#: whether the dataset has it.
PICTURE = np.dtype(
    [
        ("image", np.int64),
        ("key", np.int64),
        ("hash", np.uint64),
        ("unit", np.int32),
        ("kept", np.bool_),
    ]
)
#: Parquet files of shards read at a time.
_READERS = 8

Pictures = NDArray[np.void]


def duplicate_rule(job: Job) -> JobFilter | None:
    """The filter by which a job looks for near-duplicates; None: it does not."""
    rules = (one for one in job.filters if one.kind == "duplicate")
    return next((one for one in rules if one.at_least is not None), None)


def within_of(rule: JobFilter) -> int:
    """By how many bits two pictures differ at most that resemble each other."""
    return int(rule.at_least or 1) - 1


def read_hashes(
    store: Store, layout: JobLayout, rule: JobFilter, units: Sequence[Manifest]
) -> Pictures:
    """Those of every picture, and of those that this rule turned away; 29 bytes each.

    `PICTURE` [n]; `unit` is the place of its manifest in `units`.
    """
    read = partial(_of_unit, store, layout, rule)
    with ThreadPoolExecutor(_READERS) as readers:
        parts = [*readers.map(read, range(len(units)), units)]
    return np.concatenate([np.empty(0, PICTURE), *parts])


def _of_unit(
    store: Store, layout: JobLayout, rule: JobFilter, number: int, manifest: Manifest
) -> Pictures:
    data = io.BytesIO(store.get(layout.shards + manifest.parquet.name))
    table = pq.read_table(data, columns=["image", "key", "status", "error", PHASH])
    told = pc.or_(
        pc.equal(table["status"], "ok"), pc.equal(table["error"], f"rejected:{rule.name}")
    )
    table = table.filter(pc.and_(told, pc.is_valid(table[PHASH])))
    found = np.empty(table.num_rows, PICTURE)
    found["image"] = table["image"].to_numpy()
    found["key"] = pc.cast(table["key"], pa.int64()).to_numpy()
    found["hash"] = [int(text, 16) for text in table[PHASH].to_pylist()]
    found["unit"] = number
    found["kept"] = pc.equal(table["status"], "ok").to_numpy()
    return found


def key_of(number: int) -> str:
    """A picture's key from it as a number: five digits of shard or more, and four of index."""
    return f"{number:09d}"
