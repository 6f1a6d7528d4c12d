"""The images of a job one by one: committed ones as they came out, the rest as planned."""

import io
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import groupby
from typing import Any, Literal

import pyarrow.parquet as pq
from pydantic import Field

from jobs.dataset_index import cover
from jobs.discard import shard_number
from jobs.extent import Extent
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.recipe import Frozen
from jobs.rounds import extent_with, read_extent, rounds_of
from jobs.spool import fetch_rows
from jobs.store import Store

#: Shards that one page looks at: a page of tiny shards may be short of its limit.
SCAN = 200
#: Shards of a retry that are looked at all together.
FEW = 16
_READERS = 16
_COLUMNS = ["image", "row", "repeat", "key", "prompt", "seed", "status", "error", "sha256", "bytes"]


class Item(Frozen):
    """One image of a job."""

    image: int = Field(description="Its index in the job, from 0")
    row: int = Field(description="Its line of the prompt source, from 0")
    repeat: int
    status: Literal["ok", "failed", "pending", "dropped"] = Field(
        description="pending: not in a committed shard yet; dropped: taken out since"
    )
    key: str = Field(description="Its name inside its shard", examples=["000170012"])
    prompt: str
    seed: int
    error: str = Field(default="", description="Why there is no picture")
    sha256: str = Field(default="", description="Of the picture's file")
    bytes: int = 0
    link: str | None = Field(
        default=None, description="Shows the picture without a key for an hour; null: there is none"
    )


class ItemPage(Frozen):
    """Images in their order; `next` is the `first` of the next page, null: this was the last."""

    items: tuple[Item, ...] = Field(strict=False)
    next: int | None


def item_page(store: Store, layout: JobLayout, job: Job, *, first: int, limit: int) -> ItemPage:
    """Images `first` up to `first + limit`, fewer where shards are tiny. Raises Unreachable."""
    extent = read_extent(store, layout, job)
    if first >= extent.images:
        return ItemPage(items=(), next=None)
    block, size = extent.block_of(first), job.shard_images
    scanned = (extent.shard(first) + SCAN) * size - extent.place(first)
    stop = min(first + limit, first + scanned, block.stop_image)
    items = items_of(store, layout, job, range(first, stop), extent)
    return ItemPage(items=items, next=stop if stop < extent.images else None)


def items_of(
    store: Store,
    layout: JobLayout,
    job: Job,
    indexes: Sequence[int],
    extent: Extent | None = None,
) -> tuple[Item, ...]:
    """These images (rising indexes), wherever they lie. Raises Unreachable.

    `extent`: the dataset's, where the caller has read it.
    """
    extent = extent or extent_with(store, layout, job, max(indexes, default=0))
    wanted = set(indexes)
    shards = sorted({extent.shard(index) for index in wanted})
    committed = manifests_among(store, layout, shards)
    found = {
        row["image"]: _made(row)
        for manifest in committed
        for row in _rows(store, layout, manifest)
        if row["image"] in wanted
    }
    lacking = {i for i in indexes if i not in found or found[i].status != "ok"}
    later = retried_manifests(store, layout, min(lacking), max(lacking)) if lacking else []
    found |= _made_later(store, layout, later, lacking)
    missing = [index for index in indexes if index not in found]
    dropped = {image for manifest in (*committed, *later) for image in manifest.dropped}
    found |= {item.image: item for item in _planned(store, layout, extent, missing, dropped)}
    return tuple(found[index] for index in indexes)


def image_row(store: Store, layout: JobLayout, job: Job, image: int) -> dict[str, Any] | None:
    """The image's whole row as its parquet file has it, of the try that made it if one did.

    None: it is in no committed shard.
    """
    shard = extent_with(store, layout, job, image).shard(image)
    first = _whole_row(store, layout, manifests_of(store, layout, range(shard, shard + 1)), image)
    if first is not None and first["status"] == "ok":
        return first
    return _whole_row(store, layout, retried_manifests(store, layout, image, image), image) or first


def manifests_among(store: Store, layout: JobLayout, shards: Iterable[int]) -> list[Manifest]:
    """As `manifests_of`, of shards (in rising order) that need not follow each other."""
    runs: list[range] = []
    for shard in shards:
        joins = bool(runs) and runs[-1].stop == shard
        first = runs.pop().start if joins else shard
        runs.append(range(first, shard + 1))
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(partial(manifests_of, store, layout), runs)
        return [manifest for some in found for manifest in some]


def manifests_of(store: Store, layout: JobLayout, shards: range) -> list[Manifest]:
    """The manifests that make up these shards, in the order of their images; gaps are allowed."""
    keys = list(manifest_keys(store, layout, shards))
    with ThreadPoolExecutor(_READERS) as readers:
        found = [Manifest.model_validate_json(data) for data in readers.map(store.get, keys)]
    return cover(found)


def retried_manifests(
    store: Store, layout: JobLayout, low: int | None = None, high: int | None = None
) -> list[Manifest]:
    """The manifests of retries: of images that had no picture, tried again.

    With `low` and `high`, of those that may hold images from one up to the other: their images rise
    from shard to shard, so that of ten thousand some thirty are read.
    """
    found: list[Manifest] = []
    for one in (one for one in rounds_of(store, layout) if one.renders and not one.block):
        keys = manifest_keys(store, layout, range(one.first_shard, one.stop_shard))
        shards = sorted({shard_number(key.removeprefix(layout.shards)) or 0 for key in keys})
        if low is not None and high is not None and len(shards) > FEW:
            ends = _ends_of(store, layout)
            shards = shards[bisect_left(shards, low, key=lambda shard: ends(shard)[1]) :]
            shards = shards[: bisect_right(shards, high, key=lambda shard: ends(shard)[0])]
        found += manifests_among(store, layout, shards)
    return found


def _ends_of(store: Store, layout: JobLayout) -> Callable[[int], tuple[int, int]]:
    @cache
    def ends(shard: int) -> tuple[int, int]:
        """The first and the last image of a retry's shard, dropped ones too."""
        images: list[int] = []
        for one in manifests_of(store, layout, range(shard, shard + 1)):
            data = io.BytesIO(store.get(layout.shards + one.parquet.name))
            images += pq.read_table(data, columns=["image"])["image"].to_pylist()
            images += one.dropped
        return min(images), max(images)

    return ends


def _made_later(
    store: Store, layout: JobLayout, later: Sequence[Manifest], wanted: set[int]
) -> dict[int, Item]:
    """Those of the wanted images that a retry made."""
    with ThreadPoolExecutor(_READERS) as readers:
        tables = readers.map(partial(_rows, store, layout), later)
        return {
            row["image"]: _made(row)
            for rows in tables
            for row in rows
            if row["status"] == "ok" and row["image"] in wanted
        }


def manifest_keys(store: Store, layout: JobLayout, shards: range) -> Iterator[str]:
    """Keys of the manifests of these shards and of their parts: one listing, not one a shard."""
    for some in _of_one_width(shards):
        first, last = (f"{layout.shards}{shard:05d}" for shard in (some[0], some[-1]))
        # Names of one shard follow each other: "-" for its parts, then "." and "_".
        for found in store.list(first if len(some) == 1 else layout.shards, after=first):
            if found.key[: len(last)] > last:
                break
            number = shard_number(found.key.removeprefix(layout.shards))
            if found.key.endswith("_stats.json") and number in some:
                yield found.key


def _of_one_width(shards: range) -> Iterator[range]:
    """The shards in runs whose names are of one length: those sort as their numbers do."""
    first = shards.start
    while first < shards.stop:
        width = max(5, len(str(first)))
        stop = min(shards.stop, 10**width)
        yield range(first, stop)
        first = stop


def _rows(store: Store, layout: JobLayout, manifest: Manifest) -> list[dict[str, Any]]:
    data = store.get(layout.shards + manifest.parquet.name)
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data), columns=_COLUMNS).to_pylist()
    return rows


def _whole_row(
    store: Store, layout: JobLayout, manifests: Sequence[Manifest], image: int
) -> dict[str, Any] | None:
    """The row of an image in the last of these tables that has it."""
    for manifest in reversed(manifests):
        data = io.BytesIO(store.get(layout.shards + manifest.parquet.name))
        table = pq.read_table(data, filters=[("image", "==", image)])
        if table.num_rows:
            row: dict[str, Any] = table.to_pylist()[0]
            return row
    return None


def _made(row: dict[str, Any]) -> Item:
    return Item.model_validate(row, strict=False)


def _planned(
    store: Store, layout: JobLayout, extent: Extent, indexes: list[int], dropped: Container[int]
) -> Iterator[Item]:
    """Images that no committed shard has a row of, with the seed that is theirs."""
    for block, group in groupby(indexes, extent.block_of):
        some = list(group)
        wanted, read = set(some), partial(fetch_rows, store)
        for image in block.planned(extent.job, some[0], some[-1] + 1, read):
            if image.index in wanted:
                yield Item(
                    image=image.index,
                    row=image.row_index,
                    repeat=image.repeat,
                    status="dropped" if image.index in dropped else "pending",
                    key=layout.sample(extent.place(image.index)),
                    prompt=image.row.prompt,
                    seed=image.seed,
                )
