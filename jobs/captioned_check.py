"""Captioned pictures looked at once: which of them decode, and what the bytes of each are."""

import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

#: What Pillow raises for files that are damaged, by kind of file and place of the damage.
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_READERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a picture lies in its tar."""

    offset: int
    length: int


def digests(tar: Path, spans: list[Span], notes: Path) -> list[str]:
    """SHA-256 of each picture, "" for one that does not decode.

    What was found is noted under `notes`, so that a tar that did not change is decoded once.
    """
    stat = tar.stat()
    name = hashlib.sha256(f"{tar.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    note = notes / f"{name[:24]}.json"
    known = _read_note(note)
    if any(f"{one.offset}" not in known for one in spans):
        with ThreadPoolExecutor(_READERS) as readers:
            found = readers.map(_looking(tar), spans)
            known = {f"{one.offset}": digest for one, digest in zip(spans, found, strict=True)}
        _write_note(note, known)
    return [known[f"{one.offset}"] for one in spans]


def _looking(tar: Path) -> Callable[[Span], str]:
    def digest(span: Span) -> str:
        with tar.open("rb") as file:
            file.seek(span.offset)
            data = file.read(span.length)
        try:
            with Image.open(io.BytesIO(data)) as picture:
                picture.convert("RGB")
        except BROKEN:
            return ""
        return hashlib.sha256(data).hexdigest()

    return digest


def _read_note(note: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        # It was not looked at yet, or its writer died: look again.
        return {}
    return found


def _write_note(note: Path, known: dict[str, str]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    part = note.with_name(f".{note.name}.{os.getpid()}")
    part.write_text(json.dumps(known), "utf-8")
    os.replace(part, note)
