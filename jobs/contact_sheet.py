"""The contact sheet: a job's first pictures on one page, read without fetching whole tars."""

import io
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

from PIL import Image, ImageOps

from jobs.store import Store

PICTURES = 64
COLUMNS = 8
CELL = 128
_GAP = 4
_PAPER = (244, 244, 244)
#: Of a JPEG.
_QUALITY = 88
#: One ranged read; a few pictures at a time.
_READ = 4 << 20


class ObjectReader(io.RawIOBase):
    """An object read from its start by ranged requests, only as far as somebody reads."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        super().__init__()
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` with what comes next; 0 at the end."""
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        data = self._store.get_range(self._key, self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def first_pictures(
    store: Store, tars: Iterable[tuple[str, int]], limit: int = PICTURES
) -> list[bytes]:
    """The files of the first pictures in these tars (key, bytes), in order."""
    found = (data for key, size in tars for data in _pictures(store, key, size))
    return list(islice(found, limit))


def contact_sheet(pictures: Iterable[bytes], form: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """One picture of the pictures in rows of eight; an empty page where there is none."""
    cells = [_cell(data) for data in pictures]
    columns = min(COLUMNS, max(1, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    step = CELL + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, rows * step + _GAP), _PAPER)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        left = _GAP + column * step + (CELL - cell.width) // 2
        sheet.paste(cell, (left, _GAP + row * step + (CELL - cell.height) // 2))
    out = io.BytesIO()
    sheet.save(out, form, optimize=True, quality=_QUALITY)
    return out.getvalue()


def _pictures(store: Store, key: str, size: int) -> Iterator[bytes]:
    reader = io.BufferedReader(ObjectReader(store, key, size), _READ)
    with tarfile.open(fileobj=reader, mode="r|") as tar:
        for member in tar:
            body = tar.extractfile(member)
            if body is not None and not member.name.endswith((".txt", ".json")):
                yield body.read()


def _cell(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as picture:
        # A JPEG decodes to a fraction of its size by itself.
        picture.draft("RGB", (CELL, CELL))
        return ImageOps.contain(picture.convert("RGB"), (CELL, CELL))
