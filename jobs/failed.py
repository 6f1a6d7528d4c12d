"""The images of a job that have no picture, page by page: while it runs, and once it has ended."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice

import pyarrow.parquet as pq
from pydantic import Field

from jobs.errors import InvalidInput, NotFound
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.quarantine import FILE_ROWS, FailedRow, failed_of
from jobs.recipe import Frozen
from jobs.rows import Scalar
from jobs.store import Store

#: Manifests that one page of a running job looks at.
SCAN = 200
_READERS = 16


class FailedImage(Frozen):
    """An image without a picture."""

    key: str
    image: int = Field(description="Its index in the job, from 0")
    row: int = Field(description="Its line of the prompt source, from 0")
    repeat: int
    prompt: str
    negative_prompt: str
    seed: int
    error: str
    error_kind: str = Field(description="device, nan, flat, encode, died, filter or rejected")
    traceback: str
    attempts: int = Field(description="Tries, or processes that died on it")
    worker: str
    shard: str
    unit: str
    created: datetime
    width: int | None = Field(default=None, description="What it was to be made with")
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    columns: dict[str, Scalar] = Field(description="The filters' and the prompt source's own")


class FailedPage(Frozen):
    """Some of the images without a picture."""

    failed: tuple[FailedImage, ...]
    ended: bool = Field(description="Whether the job has ended: then the pages hold all of them")
    cursor: str | None = Field(description="Asks for the next page; null: this was the last")


def failed_page(
    store: Store, layout: JobLayout, job: Job, *, limit: int = 100, cursor: str | None = None
) -> FailedPage:
    """Up to `limit` images from where `cursor` of the page before points.

    Of a running job: those in committed shards, from a bounded number of them a page, so a page
    may be short although more follow. Raises InvalidInput for a cursor of another kind.
    """
    ended = any(store.head(key) is not None for key in (layout.success, layout.outcome))
    if ended:
        return _from_quarantine(store, layout, job, limit, cursor or "0")
    return _from_manifests(store, layout, job, limit, cursor or "0.0")


def _from_quarantine(
    store: Store, layout: JobLayout, job: Job, limit: int, cursor: str
) -> FailedPage:
    if not cursor.isdigit():
        raise _ended_since()
    first = int(cursor)
    number, skip = divmod(first, FILE_ROWS)
    try:
        data = store.get(layout.quarantine(number))
    except NotFound:
        return FailedPage(failed=(), ended=True, cursor=None)
    table = pq.read_table(io.BytesIO(data))
    rows = table.slice(skip, limit).to_pylist()
    # A page ends with its file; only a full file has one after it.
    more = skip + len(rows) < table.num_rows or table.num_rows == FILE_ROWS
    images = tuple(_image(row, job) for row in rows)
    return FailedPage(
        failed=images, ended=True, cursor=str(first + len(images)) if more and images else None
    )


def _from_manifests(
    store: Store, layout: JobLayout, job: Job, limit: int, cursor: str
) -> FailedPage:
    """`cursor`: a unit's file name without its ending, and how many of its rows to pass over."""
    stem, dot, passed = cursor.rpartition(".")
    if not dot:
        raise _ended_since()
    # Sorts just before the manifest that is to be read first.
    after = f"{layout.shards}{stem}_stats.jso" if stem != "0" else ""
    keys = list(islice(_manifest_keys(store, layout, after), SCAN + 1))
    skip, images = int(passed), list[FailedImage]()
    for manifest in _read(store, keys[:SCAN]):
        rows = failed_of(store, layout, manifest, job)[skip:] if manifest.failed else []
        wanted = rows[: limit - len(images)]
        images += [_image(row, job) for row in wanted]
        if len(rows) > len(wanted):
            stem = manifest.tar.name.removesuffix(".tar")
            next_cursor = f"{stem}.{skip + len(wanted)}"
            return FailedPage(failed=tuple(images), ended=False, cursor=next_cursor)
        skip = 0
    more = f"{_stem(layout, keys[SCAN])}.0" if len(keys) > SCAN else None
    return FailedPage(failed=tuple(images), ended=False, cursor=more)


def _manifest_keys(store: Store, layout: JobLayout, after: str) -> Iterator[str]:
    for found in store.list(layout.shards, after=after):
        if found.key.endswith("_stats.json"):
            yield found.key


def _read(store: Store, keys: list[str]) -> Iterator[Manifest]:
    with ThreadPoolExecutor(_READERS) as readers:
        for data in readers.map(store.get, keys):
            yield Manifest.model_validate_json(data)


def _stem(layout: JobLayout, key: str) -> str:
    return key.removeprefix(layout.shards).removesuffix("_stats.json")


def _image(row: FailedRow, job: Job) -> FailedImage:
    own = {name: row[name] for name in job.columns}
    ours = {name: value for name, value in row.items() if name not in own}
    return FailedImage(**ours, columns=own)


def _ended_since() -> InvalidInput:
    return InvalidInput(
        "this cursor is not of this list any more: the job has ended, or began anew",
        where="cursor",
        remedy="ask again without a cursor",
    )
