"""The quarantine: a row for every image without a picture, in `quarantine/00000.parquet`, ..."""

import hashlib
import heapq
import io
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.dataset_index import IndexFile
from jobs.errors import NotFound
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
    *("width", "height", "steps", "guidance", "sampler"),
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


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What was written: the files, their rows, and error -> rows, the commonest first."""

    files: tuple[IndexFile, ...] = ()
    rows: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    #: Of a job with `accept`: rows of the prompt source that lack a picture, however many.
    short: frozenset[int] = frozenset()


def failed_of(store: Store, layout: JobLayout, manifest: Manifest, job: Job) -> list[FailedRow]:
    """The rows of a unit's images that have no picture, in the order of the images."""
    table = pq.read_table(io.BytesIO(store.get(layout.shards + manifest.parquet.name)))
    names = set(quarantine_schema(job.columns).names)
    return [
        {name: value for name, value in row.items() if name in names}
        | {"attempts": row["attempt"], "unit": manifest.unit}
        for row in table.to_pylist()
        if row["status"] != "ok"
    ]


def failed_rows(
    store: Store,
    layout: JobLayout,
    job: Job,
    rounds: Sequence[Sequence[Manifest]],
    made: Container[int],
) -> Iterator[FailedRow]:
    """The rows of every image without a picture, in the order of the images.

    `rounds`: the manifests of the job, then those of each later round, in order. The last word on
    an image is the latest round's; `made`: images that a later round made after all. A few units
    of each round are in memory at a time.
    """
    streams = [
        _failed_in(store, layout, job, manifests, -number)
        for number, manifests in enumerate(rounds)
    ]
    merged = heapq.merge(*streams, key=lambda pair: (pair[1]["image"], pair[0]))
    for image, words in groupby(merged, key=lambda pair: int(pair[1]["image"])):
        if image not in made:
            yield next(words)[1]


def _failed_in(
    store: Store, layout: JobLayout, job: Job, manifests: Iterable[Manifest], age: int
) -> Iterator[tuple[int, FailedRow]]:
    read = partial(failed_of, store, layout, job=job)
    with ThreadPoolExecutor(_READERS) as readers:
        for some in _some((one for one in manifests if one.failed), _READERS):
            for rows in readers.map(read, some):
                yield from ((age, row) for row in rows)


def write_quarantine(
    store: Store, layout: JobLayout, job: Job, rows: Iterable[FailedRow]
) -> Quarantine:
    """Write the rows as files of `FILE_ROWS`, over those of before; none where there is no row.

    The same rows make the same bytes.
    """
    schema = quarantine_schema(job.columns)
    files, errors, short = list[IndexFile](), Counter[str](), set[int]()
    for number, some in enumerate(_some(rows, FILE_ROWS)):
        if job.accept:
            # An extension's images of a row do not stand beside its first ones.
            short.update(row["row"] for row in some)
        errors.update(str(row["error"] or "failed")[:200] for row in some)
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(some, schema=schema), out, compression="zstd")
        data, key = out.getvalue(), layout.quarantine(number)
        digest = hashlib.sha256(data).hexdigest()
        store.put(key, data, content_type=CONTENT_TYPE, metadata={"sha256": digest})
        files.append(IndexFile(name=key.removeprefix(layout.root), bytes=len(data), sha256=digest))
    return Quarantine(tuple(files), errors.total(), dict(errors.most_common()), frozenset(short))


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


def quarantine_rows(store: Store, layout: JobLayout) -> Iterator[FailedRow]:
    """Every row of the quarantine, a file at a time."""
    number = 0
    while True:
        try:
            rows = read_quarantine(store, layout, number)
        except NotFound:
            return
        yield from rows
        number += 1
