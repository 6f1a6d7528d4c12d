"""A shard's parquet file: one row per image, failed ones too."""

import io
from collections.abc import Iterable, Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.job import ColumnKind
from jobs.shard_row import ShardRow, schema_of

CONTENT_TYPE = "application/vnd.apache.parquet"


def build_table(
    rows: Iterable[ShardRow], columns: Mapping[str, ColumnKind], upload_ms: float | None
) -> bytes:
    """The parquet file's bytes: a pure function of the arguments, sorted by image.

    `upload_ms` is one image's share of writing the tar; None where that is not known.
    """
    schema = schema_of(columns)
    ordered = sorted(rows, key=lambda row: int(row["image"]))
    full = [
        {**row, "created": datetime.fromisoformat(row["created"]), "upload_ms": upload_ms}
        for row in ordered
    ]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(full, schema=schema), out, compression="zstd")
    return out.getvalue()
