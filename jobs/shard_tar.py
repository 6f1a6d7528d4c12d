"""A shard's tar: picture, caption and row of every image that was made, in WebDataset form."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO

from jobs.records import Picture
from jobs.shard_row import ShardRow

CONTENT_TYPE = "application/x-tar"


def write_tar(out: IO[bytes], pictures: Sequence[Picture], rows: Sequence[ShardRow]) -> None:
    """Write members `KEY.png KEY.txt KEY.json` in the order of the keys; failed images have none.

    `rows[i]` belongs to `pictures[i]`. The bytes depend on the arguments alone: no clock, no
    user. Raises ValueError where a picture's file name is not its key and one extension.
    """
    pairs = [
        (picture, row)
        for picture, row in zip(pictures, rows, strict=True)
        if picture.record.status == "ok"
    ]
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for picture, row in sorted(pairs, key=lambda pair: pair[0].record.image):
            key, name = picture.record.key, picture.record.file_name
            if name.count(".") != 1 or name.partition(".")[0] != key:
                raise ValueError(f"{name!r} is no file name for {key!r}")
            _add(tar, name, picture.data)
            _add(tar, f"{key}.txt", picture.record.prompt.encode())
            _add(tar, f"{key}.json", row_json(row))


def build_tar(pictures: Sequence[Picture], rows: Sequence[ShardRow]) -> bytes:
    """The tar's bytes; see `write_tar`."""
    out = io.BytesIO()
    write_tar(out, pictures, rows)
    return out.getvalue()


def read_tar(source: bytes | IO[bytes]) -> list[ShardRow]:
    """The rows of the images in a tar, in its order; the pictures are passed over."""
    return list(_rows(io.BytesIO(source) if isinstance(source, bytes) else source))


def row_json(row: ShardRow) -> bytes:
    """A row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def _rows(file: IO[bytes]) -> Iterator[ShardRow]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            body = tar.extractfile(member) if member.name.endswith(".json") else None
            if body is not None:
                yield json.loads(body.read())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # A fresh TarInfo has mtime, uid and gid 0: the same pictures make the same tar.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
