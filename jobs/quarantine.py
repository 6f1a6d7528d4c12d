"""The quarantine: a row for every image without a picture, in `quarantine/00000.parquet`, ..."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.dataset_index import IndexFile
from jobs.job import ColumnKind, Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.shard_row import schema_of
from jobs.shard_table import CONTENT_TYPE
from jobs.store import Store

#: Rows in one file: what is held in memory at a time.
FILE_ROWS = 20_000
#: Parquet files of shards read at a time.
_READERS = 8
#: Our columns, in their order; the prompt source's own follow.
_COLUMNS = (
    *("key", "image", "row", "repeat", "prompt", "negative_prompt", "seed", "error"),
    *("error_kind", "traceback", "attempts", "worker", "shard", "unit", "created"),
)

#: Column -> value.
FailedRow = dict[str, Any]
T = TypeVar("T")


def quarantine_schema(columns: Mapping[str, ColumnKind]) -> pa.Schema:
    """The columns of the quarantine's files, those of the prompt source (`columns`) last."""
    known = {field.name: field for field in schema_of(columns)}
    made = {
        "attempts": pa.field("attempts", pa.int64(), nullable=False),
        "unit": pa.field("unit", pa.string(), nullable=False),
    }
    return pa.schema([(known | made)[name] for name in (*_COLUMNS, *columns)])


def failed_of(store: Store, layout: JobLayout, manifest: Manifest, job: Job) -> list[FailedRow]:
    """The rows of a unit's images that have no picture, in the order of the images."""
    table = pq.read_table(io.BytesIO(store.get(layout.shards + manifest.parquet.name)))
    names = set(quarantine_schema(job.rows.columns).names)
    return [
        {name: value for name, value in row.items() if name in names}
        | {"attempts": row["attempt"], "unit": manifest.unit}
        for row in table.to_pylist()
        if row["status"] != "ok"
    ]


def failed_rows(
    store: Store, layout: JobLayout, job: Job, manifests: Iterable[Manifest]
) -> Iterator[FailedRow]:
    """The rows of every image without a picture, unit by unit; a few units in memory at a time."""
    read = partial(failed_of, store, layout, job=job)
    with ThreadPoolExecutor(_READERS) as readers:
        for some in _some((one for one in manifests if one.failed), _READERS):
            for rows in readers.map(read, some):
                yield from rows


def write_quarantine(
    store: Store, layout: JobLayout, job: Job, rows: Iterable[FailedRow]
) -> tuple[IndexFile, ...]:
    """Write the rows as files of `FILE_ROWS`, over those of before; none where there is no row.

    The same rows make the same bytes.
    """
    schema = quarantine_schema(job.rows.columns)
    files = []
    for number, some in enumerate(_some(rows, FILE_ROWS)):
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(some, schema=schema), out, compression="zstd")
        data, key = out.getvalue(), layout.quarantine(number)
        digest = hashlib.sha256(data).hexdigest()
        store.put(key, data, content_type=CONTENT_TYPE, metadata={"sha256": digest})
        files.append(IndexFile(name=key.removeprefix(layout.root), bytes=len(data), sha256=digest))
    return tuple(files)


def remove_old_quarantine(store: Store, layout: JobLayout, files: Iterable[IndexFile]) -> None:
    """Remove files of the quarantine that the index does not list any more."""
    names = {layout.root + file.name for file in files}
    found = (one.key for one in store.list(layout.quarantine_folder))
    store.delete(key for key in found if key not in names)


def _some(values: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(values)
    while found := list(islice(source, size)):
        yield found


def read_quarantine(store: Store, layout: JobLayout, number: int) -> list[FailedRow]:
    """The rows of file `number`; raises NotFound where there is no such file."""
    rows: list[FailedRow] = pq.read_table(
        io.BytesIO(store.get(layout.quarantine(number)))
    ).to_pylist()
    return rows
