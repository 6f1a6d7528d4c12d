"""The contact sheet of one shard: pictures from all over it, as soon as it is committed."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

from jobs.contact_sheet import PICTURES, contact_sheet
from jobs.errors import NotFound
from jobs.job import Job
from jobs.kept import KeptFiles
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.pictures import PictureFile, Pictures

#: Bytes of pictures that are read for one sheet; of large pictures it has fewer.
READ_MAX = 32 << 20
#: Bytes of sheets that are kept in memory.
KEPT = 32 << 20
_READERS = 8


class ShardSheets:
    """Makes sheets from committed shards. Safe to share between threads."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._kept = KeptFiles(KEPT)

    def read(self, layout: JobLayout, job: Job, shard: int) -> PictureFile:
        """The sheet of a shard as the dataset numbers it, a JPEG; raises NotFound without one."""
        try:
            return self._read(layout, job, shard)
        except NotFound:
            if not self._pictures.forget(layout):
                raise
            return self._read(layout, job, shard)

    def _read(self, layout: JobLayout, job: Job, shard: int) -> PictureFile:
        units = self._pictures.units(layout, job, shard)
        if not any(one.ok for one in units):
            raise NotFound(
                "there is no picture in this shard",
                where=f"{job.id}, shard {shard}",
                remedy="it is not committed yet, or all its images failed",
            )
        for one in units:
            self._pictures.check(layout, one)
        # A split shard has more of itself a moment later.
        key = tuple(one.parquet.sha256 for one in units)
        return self._kept.get((layout.root, *key), lambda: self._make(layout, units))

    def _make(self, layout: JobLayout, units: list[Manifest]) -> PictureFile:
        found = [
            (one, place)
            for one in units
            for _, place in sorted(self._pictures.places(layout, one).items())
        ]
        mean = sum(place.bytes for _, place in found) / len(found)
        wanted = max(1, min(PICTURES, len(found), int(READ_MAX // max(1.0, mean))))
        chosen = [found[number * len(found) // wanted] for number in range(wanted)]
        with ThreadPoolExecutor(_READERS) as readers:
            files = readers.map(lambda one: self._pictures.fetch(layout, *one).data, chosen)
            data = contact_sheet(files, "JPEG")
        return PictureFile(data, "image/jpeg", hashlib.sha256(data).hexdigest())
