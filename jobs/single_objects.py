"""Pictures as objects of their own, beside their shard: for small jobs and whoever wants a link."""

import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from jobs.layout import JobLayout
from jobs.store import Store

#: Pictures written at a time: each waits for one answer of the store.
WRITERS = 8
TYPES: dict[str, str] = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


def put_pictures(store: Store, layout: JobLayout, tar: IO[bytes]) -> int:
    """Write every picture of a committed tar as `images/KEY.png`; how many.

    They follow from the tar, so that whoever writes them again writes the same bytes. A shard's
    pictures are held in memory meanwhile.
    """

    def put(picture: tuple[str, bytes]) -> None:
        name, data = picture
        kind = TYPES[name.rpartition(".")[2]]
        store.put(layout.pictures + name, data, content_type=kind)

    tar.seek(0)
    with ThreadPoolExecutor(WRITERS, "objects") as writers:
        return sum(1 for _ in writers.map(put, _pictures(tar)))


def _pictures(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.name.rpartition(".")[2] in TYPES and (body := tar.extractfile(member)):
                yield member.name, body.read()
