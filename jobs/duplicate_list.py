"""`duplicates.parquet`: which pictures of a dataset resemble earlier ones, of any shard."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.duplicates import near_duplicates
from jobs.filters import JobFilter
from jobs.layout import JobLayout
from jobs.picture_hashes import Pictures, key_of, within_of
from jobs.shard_table import CONTENT_TYPE
from jobs.store import Store

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", pa.int64(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),
        pa.field("distance", pa.int64(), nullable=False),
    ]
)


def write_duplicates(store: Store, layout: JobLayout, rule: JobFilter, pictures: Pictures) -> int:
    """List those of the dataset's pictures that resemble an earlier one; how many they are."""
    kept = pictures[pictures["kept"]]
    kept = kept[np.argsort(kept["image"], kind="stable")]
    found, apart = near_duplicates(kept["hash"], within_of(rule))
    close = np.flatnonzero(found >= 0)
    columns = [
        [key_of(number) for number in kept["key"][close]],
        kept["image"][close],
        [key_of(number) for number in kept["key"][found[close]]],
        apart[close],
    ]
    out = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_SCHEMA), out, compression="zstd")
    store.put(layout.duplicates, out.getvalue(), content_type=CONTENT_TYPE)
    return len(close)
