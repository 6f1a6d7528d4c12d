"""One picture out of a shard's tar, by a ranged read where its place can be worked out."""

import hashlib
import io
import tarfile
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import pyarrow.parquet as pq

from jobs.errors import NotFound
from jobs.extent import Block, Extent, own_block
from jobs.items import manifests_of, retried_manifests
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.rounds import read_extent, rounds_of
from jobs.shard_row import json_row_of
from jobs.shard_tar import row_json
from jobs.store import Store

_BLOCK = 512
#: Shards whose pictures' places are kept in memory.
SHARDS_KEPT = 64
#: Whole shards whose manifests are kept in memory, and how long those of later rounds are.
UNITS_KEPT, LATER_S = 256, 5.0
#: Shards of retries that are read and kept all together.
RETRIED_KEPT = 64
#: Seconds for which a tar that was there is taken to be there still.
SEEN_S = 1.0
#: Units that are looked at for one with a picture.
FIRST_SCAN = 20
T = TypeVar("T")
TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture should lie in its tar, and how it is known when it was found."""

    name: str
    first: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture's bytes and what they are."""

    data: bytes
    media_type: str
    sha256: str


class _Gone(NotFound):
    """What is remembered of a shard is of files that were deleted since."""


class Pictures:
    """Reads single pictures of committed shards, and remembers where those of a shard lie."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # A committed shard never changes, so its parquet file's digest names what is kept.
        self._places = lru_cache(SHARDS_KEPT)(self._read_places)
        self._lock, self._later_lock = threading.Lock(), threading.Lock()
        #: Root and shard -> its units, of shards that are whole: they do not change.
        self._whole: OrderedDict[tuple[str, int], list[Manifest]] = OrderedDict()
        #: Root -> until when, and what later rounds are: one page asks for a hundred pictures.
        self._later: dict[str, tuple[float, Extent, list[Manifest] | None]] = {}
        #: Key of a tar -> until when it need not be looked for again.
        self._seen: dict[str, float] = {}

    def read(self, layout: JobLayout, job: Job, image: int) -> PictureFile:
        """The picture of an image; raises NotFound where there is none (yet)."""
        return self._twice(layout, lambda: self.fetch(layout, *self._locate(layout, job, image)))

    def locate(self, layout: JobLayout, job: Job, image: int) -> tuple[Manifest, Place]:
        """The unit that has an image's picture, and where; raises NotFound where there is none
        (yet), or none any more. What was deleted is known to be for `SEEN_S` at most."""
        return self._twice(layout, lambda: self._locate(layout, job, image))

    def forget(self, layout: JobLayout) -> bool:
        """Forget what is known of a job's shards: they may have been written anew under other
        names. Whether there was something to forget."""
        with self._lock:
            whole = [key for key in self._whole if key[0] == layout.root]
            for key in whole:
                del self._whole[key]
            seen = [key for key in self._seen if key.startswith(layout.shards)]
            for one in seen:
                del self._seen[one]
        return bool(whole or seen)

    def _twice(self, layout: JobLayout, look: Callable[[], T]) -> T:
        """Look again where what is remembered of a job may be no longer true."""
        try:
            return look()
        except NotFound as error:
            if not self.forget(layout) and not isinstance(error, _Gone):
                raise
            return look()

    def check(self, layout: JobLayout, manifest: Manifest) -> None:
        """Raise NotFound where a unit's tar is gone: deleted, or written anew without some rows."""
        key, now = layout.shards + manifest.tar.name, time.monotonic()
        with self._lock:
            if self._seen.get(key, 0.0) > now:
                return
        if self._store.head(key) is None:
            with self._later_lock:
                self._later.pop(layout.root, None)
            raise _Gone("the shard is there no more", where=key)
        with self._lock:
            if len(self._seen) >= SHARDS_KEPT:
                self._seen = {one: until for one, until in self._seen.items() if until > now}
            self._seen[key] = now + SEEN_S

    def _locate(self, layout: JobLayout, job: Job, image: int) -> tuple[Manifest, Place]:
        block = self._extent(layout, job, image).block_of(image)
        at = block.place(image)
        for manifest in self.units(layout, job, at // job.shard_images, block):
            if manifest.first <= at < manifest.stop:
                place = self.places(layout, manifest).get(image)
                if place is not None:
                    self.check(layout, manifest)
                    return manifest, place
        retried = self._rounds(layout, job)[1]
        if retried is None:
            retried = retried_manifests(self._store, layout, image, image)
        for manifest in retried:
            place = self.places(layout, manifest).get(image)
            if place is not None:
                self.check(layout, manifest)
                return manifest, place
        raise NotFound(
            "there is no picture of this image",
            where=f"{job.id}, image {image}",
            remedy="its item says whether it is pending or failed",
        )

    def first(self, layout: JobLayout) -> PictureFile:
        """The first picture of the first units that are committed; raises NotFound."""
        keys = (one.key for one in self._store.list(layout.shards))
        for key in islice((key for key in keys if key.endswith("_stats.json")), FIRST_SCAN):
            manifest = Manifest.model_validate_json(self._store.get(key))
            places = self.places(layout, manifest) if manifest.ok else {}
            if places:
                return self.fetch(layout, manifest, places[min(places)])
        raise NotFound("there is no picture of this job yet", where=layout.job_id)

    def units(
        self, layout: JobLayout, job: Job, shard: int, block: Block | None = None
    ) -> list[Manifest]:
        """What is committed of a shard, as the dataset numbers it; `block`: the one it is of,
        where that is known and not the job's own."""
        key = (layout.root, shard)
        with self._lock:
            if key in self._whole:
                self._whole.move_to_end(key)
                return self._whole[key]
        found = manifests_of(self._store, layout, range(shard, shard + 1))
        block = block or own_block(job)
        images = block.images - (shard - block.first_shard) * job.shard_images
        if sum(one.count for one in found) == min(job.shard_images, images):
            with self._lock:
                self._whole[key] = found
                while len(self._whole) > UNITS_KEPT:
                    self._whole.popitem(last=False)
        return found

    def places(self, layout: JobLayout, manifest: Manifest) -> dict[int, Place]:
        """Where the pictures of a unit lie in its tar."""
        return self._places(layout.shards + manifest.parquet.name, manifest.parquet.sha256)

    def _extent(self, layout: JobLayout, job: Job, image: int) -> Extent:
        own = Extent(job, [own_block(job)])
        return own if image < own.images else self._rounds(layout, job)[0]

    def _rounds(self, layout: JobLayout, job: Job) -> tuple[Extent, list[Manifest] | None]:
        """What was added to a job, and the units of its retries; None where those are many."""
        # Held while reading: whoever comes meanwhile would read the same.
        with self._later_lock:
            now = time.monotonic()
            if layout.root not in self._later or self._later[layout.root][0] <= now:
                self._later = {root: one for root, one in self._later.items() if one[0] > now}
                rounds = rounds_of(self._store, layout)
                extent = read_extent(self._store, layout, job, rounds)
                shards = sum(one.shards for one in rounds if one.renders and not one.block)
                few = shards <= RETRIED_KEPT
                retried = retried_manifests(self._store, layout) if few else None
                self._later[layout.root] = (now + LATER_S, extent, retried)
            return self._later[layout.root][1:]

    def _read_places(self, key: str, sha256: str) -> dict[int, Place]:
        rows = pq.read_table(io.BytesIO(self._store.get(key))).to_pylist()
        places, at = {}, 0
        for row in rows:
            if row["status"] != "ok":
                continue
            places[row["image"]] = Place(row["file_name"], at + _BLOCK, row["bytes"], row["sha256"])
            at += _member(row["bytes"]) + _member(len(row["prompt"].encode()))
            at += _member(len(row_json(json_row_of(row))))
        return places

    def fetch(self, layout: JobLayout, manifest: Manifest, place: Place) -> PictureFile:
        """One picture of a unit."""
        key = layout.shards + manifest.tar.name
        data = self._store.get_range(key, place.first, place.first + place.bytes)
        if hashlib.sha256(data).hexdigest() != place.sha256:
            # Written by a release whose rows are longer or shorter: look for it.
            data = self._search(key, place.name)
        kind = TYPES.get(place.name.rpartition(".")[2], "application/octet-stream")
        return PictureFile(data, kind, place.sha256)

    def _search(self, key: str, name: str) -> bytes:
        with tempfile.TemporaryFile(prefix="fewstep-") as file:
            self._store.read_into(key, file)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                try:
                    member = tar.extractfile(name)
                except KeyError as error:
                    raise NotFound("the tar has no such picture", where=f"{key}, {name}") from error
                return member.read() if member else b""


def _member(size: int) -> int:
    """Bytes that a member takes in a tar: its header, and its data in whole blocks."""
    return _BLOCK + -(-size // _BLOCK) * _BLOCK
