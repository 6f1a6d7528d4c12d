"""Captioned pictures: WebDataset tars in a folder or a store, listed without decoding anything."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.captioned_check import BROKEN, Span, digests
from jobs.captioned_copies import Copies
from jobs.errors import InvalidInput
from jobs.settings import Settings

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
#: Members of a sample's JSON that may be its caption, where it has no `.txt`.
CAPTIONS = ("caption", "prompt", "text")
#: Bytes of a caption, or of the JSON that it stands in.
CAPTION_MAX = 1_000_000
BROKEN_PICTURE = "with a picture that cannot be read"
_REMEDY = (
    "give a dataset that fewstep wrote, or WebDataset tars whose samples have a picture "
    f"({', '.join(PICTURES)}) and a caption (.txt, or .json with {', '.join(CAPTIONS)})"
)


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """Where a picture lies in its tar (in bytes), its size in pixels, and its caption."""

    tar: Path
    key: str
    offset: int
    length: int
    width: int
    height: int
    caption: str

    def read(self) -> bytes:
        """The picture's file."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True)
class Captioned:
    """What is usable of some sources, in the order of tars and keys, and what is not, by reason."""

    pictures: tuple[CaptionedPicture, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    #: SHA-256 of what is usable: keys, captions and pictures, in their order.
    sha256: str = ""
    #: Holds the copies of objects as long as this lives.
    copies: Copies | None = field(default=None, repr=False, compare=False)


def captioned(sources: Sequence[str], width: int, height: int, settings: Settings) -> Captioned:
    """The captioned pictures of folders, tars or `s3://` prefixes, at least `width` x `height`.

    Objects are copied to the node's cache once, and every picture is decoded once. Raises
    InvalidInput naming the source that is not there, has no tar, or no picture that can be used.
    """
    found: list[CaptionedPicture] = []
    left_out: Counter[str] = Counter()
    digest, copies = hashlib.sha256(), Copies(settings)
    for source in sources:
        before = len(found)
        ours: Counter[str] = Counter()
        for tar in _tars(source, copies):
            samples = [one for one in _samples(tar, ours) if _is_large(one, width, height, ours)]
            spans = [Span(one.offset, one.length) for one in samples]
            notes = settings.cache / "captioned" / "looked-at"
            for one, sha256 in zip(samples, digests(tar, spans, notes), strict=True):
                if not sha256:
                    ours[BROKEN_PICTURE] += 1
                    continue
                found.append(one)
                digest.update(json.dumps([one.key, one.caption, sha256]).encode())
        if len(found) == before:
            reasons = ", ".join(f"{count} {reason}" for reason, count in ours.most_common())
            raise InvalidInput(
                f"no captioned picture can be used: {reasons or 'its tars are empty'}",
                where=source,
                remedy=_REMEDY,
            )
        left_out += ours
    return Captioned(tuple(found), left_out, digest.hexdigest(), copies)


def _is_large(one: CaptionedPicture, width: int, height: int, left_out: Counter[str]) -> bool:
    large = one.width >= width and one.height >= height
    left_out[f"smaller than {width}x{height}"] += not large
    return large


def _tars(source: str, copies: Copies) -> list[Path]:
    if source.startswith("s3://"):
        tars = copies.fetched(source)
    else:
        place = Path(source)
        if not place.exists():
            raise InvalidInput("there is no such folder", where=source, remedy=_REMEDY)
        tars = [place] if place.is_file() else sorted(place.rglob("*.tar"))
    if not tars:
        raise InvalidInput("there is no .tar in it", where=source, remedy=_REMEDY)
    return tars


def _samples(tar: Path, left_out: Counter[str]) -> Iterator[CaptionedPicture]:
    """The samples of a tar that have picture and caption; the others are counted."""
    try:
        with tarfile.open(tar, "r:") as file:
            for key, members in _grouped(file):
                picture, caption = _picture(file, members), _caption(file, members)
                if caption is None:
                    left_out[f"with a caption of more than {CAPTION_MAX} bytes"] += 1
                    continue
                if picture is None or not caption:
                    left_out[_lack(members, caption)] += 1
                    continue
                member, (width, height) = picture
                yield CaptionedPicture(
                    tar, key, member.offset_data, member.size, width, height, caption
                )
    except tarfile.TarError as error:
        raise InvalidInput(
            f"this is no tar that can be read: {error}", where=str(tar), remedy=_REMEDY
        ) from error


def _grouped(file: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Key and members by extension, of neighbours with the same key, as WebDataset has it."""
    last, members = "", dict[str, tarfile.TarInfo]()
    for member in file:
        if not member.isfile():
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        key = f"{folder}{slash}{stem}"
        if key != last and members:
            yield last, members
            members = {}
        last = key
        members[f"{dot}{extension.lower()}"] = member
    if members:
        yield last, members


def _picture(
    file: tarfile.TarFile, members: dict[str, tarfile.TarInfo]
) -> tuple[tarfile.TarInfo, tuple[int, int]] | None:
    """The picture's member and its size, from its header alone."""
    for extension in PICTURES:
        body = file.extractfile(members[extension]) if extension in members else None
        if body is None:
            continue
        try:
            with Image.open(body) as image:
                return members[extension], image.size
        except BROKEN:
            return None
    return None


def _caption(file: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> str | None:
    """The caption, "" where there is none; None where it is too long to be one."""
    member = members.get(".txt") or members.get(".json")
    body = file.extractfile(member) if member else None
    if member is None or body is None:
        return ""
    if member.size > CAPTION_MAX:
        return None
    if ".txt" in members:
        return body.read().decode("utf-8", "replace").strip()
    try:
        row: Any = json.loads(body.read())
    except (ValueError, RecursionError):
        return ""
    told = [row[name] for name in CAPTIONS if isinstance(row, dict) and row.get(name)]
    return str(told[0]).strip() if told else ""


def _lack(members: dict[str, tarfile.TarInfo], caption: str) -> str:
    if not members.keys() & set(PICTURES):
        return "without a picture"
    return "without a caption" if not caption else BROKEN_PICTURE
