"""Which images of a dataset a condition is true of, and which shards hold rows of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.dataset_index import DatasetIndex, IndexShard
from jobs.layout import JobLayout
from jobs.recipe import Frozen
from jobs.rewriting import read_rows_of
from jobs.rows import Scalar
from jobs.store import Store
from jobs.where import Where

#: Rows that a preview shows.
EXAMPLES = 10
#: Shards read at a time.
_READERS = 16
_SHOWN = ("key", "image", "status", "prompt")


class Found(Frozen):
    """What a condition is true of: the images, and the shards that hold rows of them."""

    images: frozenset[int]
    shards: tuple[IndexShard, ...]
    examples: tuple[dict[str, Scalar], ...]
    pictures: int


def _tables(
    store: Store, layout: JobLayout, index: DatasetIndex
) -> Iterator[tuple[IndexShard, pa.Table]]:
    """Every shard's rows, a few shards in memory at a time, in the order of the index."""
    read = partial(read_rows_of, store, layout)
    with ThreadPoolExecutor(_READERS) as readers:
        for at in range(0, len(index.shards), _READERS):
            some = index.shards[at : at + _READERS]
            yield from zip(some, readers.map(read, some), strict=True)


def matching(store: Store, layout: JobLayout, index: DatasetIndex, condition: Where) -> Found:
    """The images of whose last row the condition is true: later rounds come later in the index.

    Reads every shard's rows once; held are nine bytes a row beside those of a few shards.
    """
    last, held = bytearray(index.images), list[NDArray[np.int64]]()
    examples = dict[int, dict[str, Scalar]]()
    shown = [*_SHOWN, *sorted(condition.columns.keys() - set(_SHOWN))]
    for _, table in _tables(store, layout, index):
        held.append(table["image"].to_numpy())
        rows = zip(
            table["image"].to_pylist(),
            table["status"].to_pylist(),
            condition.matches(table),
            strict=True,
        )
        for at, (image, status, matches) in enumerate(rows):
            # Bit 1: it matches; bit 2: there is a picture of it.
            last[image] = matches + 2 * (status == "ok")
            if not matches:
                examples.pop(image, None)
            elif len(examples) < EXAMPLES:
                own = [name for name in shown if name in table.column_names]
                examples[image] = table.slice(at, 1).select(own).to_pylist()[0]
    matched = np.frombuffer(last, np.uint8) & 1 == 1
    shards = zip(index.shards, held, strict=True)
    return Found(
        images=frozenset(np.flatnonzero(matched).tolist()),
        shards=tuple(shard for shard, images in shards if matched[images].any()),
        examples=tuple(examples.values()),
        pictures=last.count(3),
    )
