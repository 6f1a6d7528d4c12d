"""Captioned pictures: WebDataset tars in a folder or a store, listed without decoding anything."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from jobs.errors import InvalidInput
from jobs.places import store_of
from jobs.settings import Settings

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
#: Members of a sample's JSON that may be its caption, where it has no `.txt`.
CAPTIONS = ("caption", "prompt", "text")
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


def captioned(sources: Sequence[str], width: int, height: int, settings: Settings) -> Captioned:
    """The captioned pictures of folders, tars or `s3://` prefixes, at least `width` x `height`.

    Objects are copied to the node's cache once. Raises InvalidInput naming the source that is not
    there, has no tar, or has no picture that can be used.
    """
    found: list[CaptionedPicture] = []
    left_out: Counter[str] = Counter()
    for source in sources:
        before = len(found)
        ours: Counter[str] = Counter()
        for tar in _tars(source, settings):
            for picture in _samples(tar, ours):
                if picture.width < width or picture.height < height:
                    ours[f"smaller than {width}x{height}"] += 1
                else:
                    found.append(picture)
        if len(found) == before:
            reasons = ", ".join(f"{count} {reason}" for reason, count in ours.most_common())
            raise InvalidInput(
                f"no captioned picture can be used: {reasons or 'its tars are empty'}",
                where=source,
                remedy=_REMEDY,
            )
        left_out += ours
    return Captioned(tuple(found), left_out)


def _tars(source: str, settings: Settings) -> list[Path]:
    if source.startswith("s3://"):
        tars = _fetched(source, settings)
    else:
        place = Path(source)
        if not place.exists():
            raise InvalidInput("there is no such folder", where=source, remedy=_REMEDY)
        tars = [place] if place.is_file() else sorted(place.rglob("*.tar"))
    if not tars:
        raise InvalidInput("there is no .tar in it", where=source, remedy=_REMEDY)
    return tars


def _fetched(source: str, settings: Settings) -> list[Path]:
    """Copies of the tars under a prefix; an object that changes is copied anew."""
    store, prefix = store_of(source, settings)
    folder, found = settings.cache / "captioned", []
    try:
        for one in store.list(prefix):
            if one.key.endswith(".tar"):
                facts = f"{store.address} {store.bucket} {one.key} {one.bytes} {one.etag}"
                path = folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.tar"
                if not path.exists():
                    store.download(one.key, path)
                found.append(path)
    finally:
        store.close()
    return found


def _samples(tar: Path, left_out: Counter[str]) -> Iterator[CaptionedPicture]:
    """The samples of a tar that have picture and caption; the others are counted."""
    try:
        with tarfile.open(tar, "r:") as file:
            for key, members in _grouped(file):
                picture, caption = _picture(file, members), _caption(file, members)
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
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            return None
    return None


def _caption(file: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> str:
    body = file.extractfile(members[".txt"]) if ".txt" in members else None
    if body is not None:
        return body.read().decode("utf-8", "replace").strip()
    body = file.extractfile(members[".json"]) if ".json" in members else None
    if body is None:
        return ""
    try:
        row: Any = json.loads(body.read())
    except ValueError:
        return ""
    told = [row[name] for name in CAPTIONS if isinstance(row, dict) and row.get(name)]
    return str(told[0]).strip() if told else ""


def _lack(members: dict[str, tarfile.TarInfo], caption: str) -> str:
    if not members.keys() & set(PICTURES):
        return "without a picture"
    return "without a caption" if not caption else "with a picture that cannot be read"
