"""One picture out of a shard's tar, by a ranged read where its place can be worked out."""

import hashlib
import io
import tarfile
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import pyarrow.parquet as pq

from jobs.errors import NotFound
from jobs.items import manifests_of, retried_manifests
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.rounds import extent_with
from jobs.shard_row import json_row_of
from jobs.shard_tar import row_json
from jobs.store import Store

_BLOCK = 512
#: Shards whose pictures' places are kept in memory.
SHARDS_KEPT = 64
#: Units that are looked at for one with a picture.
FIRST_SCAN = 20
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


class Pictures:
    """Reads single pictures of committed shards, and remembers where those of a shard lie."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # A committed shard never changes, so its parquet file's digest names what is kept.
        self._places = lru_cache(SHARDS_KEPT)(self._read_places)

    def read(self, layout: JobLayout, job: Job, image: int) -> PictureFile:
        """The picture of an image; raises NotFound where there is none (yet)."""
        extent = extent_with(self._store, layout, job, image)
        shard, at = extent.shard(image), extent.place(image)
        for manifest in manifests_of(self._store, layout, range(shard, shard + 1)):
            if manifest.first <= at < manifest.stop:
                key = layout.shards + manifest.parquet.name
                place = self._places(key, manifest.parquet.sha256).get(image)
                if place is not None:
                    return self._fetch(layout, manifest, place)
        for manifest in retried_manifests(self._store, layout):
            key = layout.shards + manifest.parquet.name
            place = self._places(key, manifest.parquet.sha256).get(image)
            if place is not None:
                return self._fetch(layout, manifest, place)
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
            table = layout.shards + manifest.parquet.name
            places = self._places(table, manifest.parquet.sha256) if manifest.ok else {}
            if places:
                return self._fetch(layout, manifest, places[min(places)])
        raise NotFound("there is no picture of this job yet", where=layout.job_id)

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

    def _fetch(self, layout: JobLayout, manifest: Manifest, place: Place) -> PictureFile:
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
