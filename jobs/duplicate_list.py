"""`duplicates.parquet`: which pictures of a dataset resemble earlier ones, of any shard."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.duplicates import near_duplicates
from jobs.filter_columns import PHASH
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.shard_table import CONTENT_TYPE
from jobs.store import Store

#: Parquet files of shards read at a time.
_READERS = 8
#: Of each picture, in the order of the images: its key as a number, its image, its hash.
_PICTURE = np.dtype([("image", np.int64), ("key", np.int64), ("hash", np.uint64)])
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", pa.int64(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),
        pa.field("distance", pa.int64(), nullable=False),
    ]
)


def write_duplicates(
    store: Store, layout: JobLayout, job: Job, manifests: Sequence[Manifest]
) -> int | None:
    """List the pictures that resemble an earlier one of the dataset; how many they are.

    None of a job that does not look for them: then nothing is written. Held in memory are 24 bytes
    a picture, and some times that while they are compared.
    """
    rule = next((one for one in job.filters if one.kind == "duplicate"), None)
    if rule is None or rule.at_least is None:
        return None
    with ThreadPoolExecutor(_READERS) as readers:
        parts = [*readers.map(lambda one: _pictures(store, layout, one), manifests)]
    pictures = np.concatenate([np.empty(0, _PICTURE), *parts])
    pictures.sort(order="image")
    found, apart = near_duplicates(pictures["hash"], int(rule.at_least) - 1)
    close = np.flatnonzero(found >= 0)
    columns = [
        [_key(number) for number in pictures["key"][close]],
        pictures["image"][close],
        [_key(number) for number in pictures["key"][found[close]]],
        apart[close],
    ]
    out = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_SCHEMA), out, compression="zstd")
    store.put(layout.duplicates, out.getvalue(), content_type=CONTENT_TYPE)
    return len(close)


def _pictures(store: Store, layout: JobLayout, manifest: Manifest) -> np.ndarray:
    data = io.BytesIO(store.get(layout.shards + manifest.parquet.name))
    table = pq.read_table(data, columns=["image", "key", "status", PHASH])
    table = table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table[PHASH])))
    found = np.empty(table.num_rows, _PICTURE)
    found["image"] = table["image"].to_numpy()
    found["key"] = [int(key) for key in table["key"].to_pylist()]
    found["hash"] = [int(text, 16) for text in table[PHASH].to_pylist()]
    return found


def _key(number: int) -> str:
    """A picture's key: five digits of shard or more, and four of index."""
    return f"{number:09d}"
