"""The pictures of a fetched dataset with their rows, one after another."""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image
from pydantic import ValidationError

from jobs.dataset_index import DatasetIndex
from jobs.errors import InvalidInput
from jobs.job import Job
from jobs.setting_tallies import SettingTally
from jobs.timing import Timing

#: Keys become the names of files: nothing else may stand in them.
_MEMBER = re.compile(r"[0-9]{9,13}\.[a-z]{3,4}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture's file and the whole row of it."""

    key: str
    extension: str
    picture: bytes
    row: dict[str, Any]

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.key}.{self.extension}"

    def thumbnail(self, side: int) -> bytes:
        """A JPEG of it whose longer side has so many pixels at most."""
        with Image.open(io.BytesIO(self.picture)) as picture:
            small = picture.convert("RGB")
        small.thumbnail((side, side))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=85)
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A dataset that was fetched into a folder."""

    folder: Path
    index: DatasetIndex
    job: Job

    @classmethod
    def at(cls, folder: Path) -> "Fetched":
        """The dataset in a folder; raises InvalidInput where there is none."""
        try:
            index = DatasetIndex.model_validate_json((folder / "index.json").read_bytes())
            job = Job.model_validate_json((folder / "job.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise InvalidInput(
                "there is no dataset in this folder, or a part of one",
                where=str(folder),
                remedy="fetch it first: fewstep fetch ID --out FOLDER",
            ) from error
        return cls(folder, index, job)

    @property
    def rows(self) -> int:
        """How many rows its prompt sources have, with those that were added."""
        return self.index.rows or self.job.rows.count

    @property
    def settings(self) -> tuple[SettingTally, ...]:
        """What its pictures were made with; empty where that was not written down."""
        try:
            data = (self.folder / "timing.json").read_bytes()
            return Timing.model_validate_json(data).settings
        except (OSError, ValidationError):
            return ()

    def samples(self) -> Iterator[Sample]:
        """Every picture in the order of the shards; one in memory at a time."""
        for shard in self.index.shards:
            try:
                with tarfile.open(self.folder / shard.name, "r:") as tar:
                    yield from _of_tar(tar)
            except (OSError, tarfile.TarError) as error:
                raise InvalidInput(
                    f"the shard cannot be read: {error}"[:200],
                    where=str(self.folder / shard.name),
                    remedy="fetch the dataset again",
                ) from error


def samples_of(file: IO[bytes]) -> Iterator[Sample]:
    """The samples of a shard's tar, one in memory at a time; raises TarError where it is none."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        yield from _of_tar(tar)


def _of_tar(tar: tarfile.TarFile) -> Iterator[Sample]:
    """A tar's samples: picture, caption and row stand beside each other."""
    picture, extension, of = b"", "", ""
    for member in tar:
        if not _MEMBER.fullmatch(member.name):
            raise tarfile.TarError(f"{member.name[:60]!r} is no name of a sample")
        key, _, end = member.name.partition(".")
        file = tar.extractfile(member)
        data = file.read() if file else b""
        if end == "json":
            if key != of or not picture:
                raise tarfile.TarError(f"{member.name} stands beside no picture")
            yield Sample(key, extension, picture, _row_of(data, member.name))
            picture, of = b"", ""
        elif end != "txt":
            picture, extension, of = data, end, key


def _row_of(data: bytes, name: str) -> dict[str, Any]:
    try:
        row = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise tarfile.TarError(f"{name} is not JSON") from error
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise tarfile.TarError(f"{name} is no row")
    return row
