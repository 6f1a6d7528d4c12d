"""The three forms of an export: tars, folders of pictures, parquet files with pictures in them."""

import io
import json
import re
import tarfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import InvalidInput
from jobs.exports.asked import Export
from jobs.exports.samples import Sample
from jobs.job import ColumnKind
from jobs.shard_row import json_schema
from jobs.shard_tar import row_json

#: Our column `image` is a number; in these forms that name is the picture's.
INDEX = "image_index"
#: The prompt once more, by the name that training programs look for.
CAPTION = "text"
#: Columns that have another name beside a picture: ours, and a source's own that would hide it.
_NAMES = {"image": INDEX} | {name: f"source_{name}" for name in (CAPTION, INDEX, "thumbnail")}
#: Letters and digits of any script may stand in a folder's name.
_LABEL = re.compile(r"[^\w-]+")
#: Rows of one group of a parquet file, and bytes of their pictures: what is held in memory.
_GROUP, _GROUP_BYTES = 100, 32 << 20


class Writer(Protocol):
    """Writes the samples of one split."""

    def add(self, sample: Sample) -> None:
        """Write one more."""

    def close(self) -> list[tuple[str, int]]:
        """Finish; the names of its shards from the export's root, and how many samples each has."""


class Cutter:
    """Says when a shard is full."""

    def __init__(self, asked: Export) -> None:
        self._asked = asked
        self.images = self.bytes = 0

    def full(self, size: int) -> bool:
        """Whether a picture of this size belongs into the next shard; counts it."""
        beyond = self.images + 1 > self._asked.shard_images
        beyond |= self.bytes + size > self._asked.shard_bytes
        cut = bool(self.images) and beyond
        if cut:
            self.images = self.bytes = 0
        self.images += 1
        self.bytes += size
        return cut


class TarWriter:
    """`train/00000.tar` and so on: `KEY.png`, `KEY.txt`, `KEY.json`, `KEY.thumbnail.jpg`."""

    def __init__(self, out: Path, split: str, asked: Export) -> None:
        self._out, self._split, self._asked = out, split, asked
        self._cutter = Cutter(asked)
        self._shards: list[tuple[str, int]] = []
        self._tar = self._next()

    def add(self, sample: Sample) -> None:
        """Write one more."""
        if self._cutter.full(len(sample.picture)):
            self._end()
            self._tar = self._next()
        self._member(sample.name, sample.picture)
        self._member(f"{sample.key}.txt", str(sample.row["prompt"]).encode())
        self._member(f"{sample.key}.json", row_json(sample.row))
        if self._asked.thumbnails:
            small = sample.thumbnail(self._asked.thumbnails)
            self._member(f"{sample.key}.thumbnail.jpg", small)
        name, count = self._shards[-1]
        self._shards[-1] = (name, count + 1)

    def close(self) -> list[tuple[str, int]]:
        """Finish."""
        self._end()
        return self._shards

    def _next(self) -> tarfile.TarFile:
        name = f"{self._split}/{len(self._shards):05d}.tar"
        (self._out / name).parent.mkdir(exist_ok=True)
        self._shards.append((name, 0))
        return tarfile.open(self._out / name, "w", format=tarfile.USTAR_FORMAT)

    def _end(self) -> None:
        self._tar.close()

    def _member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


class FolderWriter:
    """`train/FOLDER/KEY.png` and `train/metadata.jsonl`; thumbnails lie outside of the splits."""

    def __init__(self, out: Path, split: str, asked: Export) -> None:
        self._out, self._split, self._asked = out, split, asked
        (out / split).mkdir()
        self._count = 0
        self._labels: dict[str, Any] = {}
        self._metadata = (out / split / "metadata.jsonl").open("w", encoding="utf-8")

    def add(self, sample: Sample) -> None:
        """Write one more."""
        place = f"{self._folder(sample)}/{sample.name}"
        _write(self._out / self._split / place, sample.picture)
        if self._asked.thumbnails:
            small = sample.thumbnail(self._asked.thumbnails)
            _write(self._out / "thumbnails" / self._split / f"{sample.key}.jpg", small)
        told = {"file_name": place, **columns_of(sample)}
        self._metadata.write(json.dumps(told, ensure_ascii=False) + "\n")
        self._count += 1

    def close(self) -> list[tuple[str, int]]:
        """Finish."""
        self._metadata.close()
        return [(f"{self._split}/metadata.jsonl", self._count)]

    def _folder(self, sample: Sample) -> str:
        """The label, or the shard's number: no folder may hold too many files."""
        if self._asked.label is None:
            return sample.key[:-4]
        value = sample.row.get(self._asked.label)
        named = "" if value is None else unicodedata.normalize("NFC", str(value))
        folder = _LABEL.sub("_", named).strip("_")[:80] or "_"
        # Some disks do not tell capitals apart.
        first = self._labels.setdefault(folder.casefold(), value)
        if first != value:
            raise InvalidInput(
                f"the labels {first!r} and {value!r} would both lie in {folder!r}"[:300],
                where=f"--label {self._asked.label}",
                remedy="take a column whose values differ in letters and digits",
            )
        return folder


class TableFile:
    """A parquet file with the picture in the column `image`, as Hugging Face has it."""

    def __init__(self, path: Path, schema: pa.Schema, thumbnails: int | None) -> None:
        self._schema, self._thumbnails = schema, thumbnails
        self._rows: list[dict[str, Any]] = []
        self._held = 0
        self._file = pq.ParquetWriter(path, schema, compression="zstd")

    def add(self, sample: Sample) -> None:
        """Write one more row."""
        row = {"image": {"bytes": sample.picture, "path": sample.name}, **columns_of(sample)}
        if self._thumbnails:
            small = sample.thumbnail(self._thumbnails)
            row["thumbnail"] = {"bytes": small, "path": f"{sample.key}.jpg"}
        self._rows.append(row)
        self._held += len(sample.picture)
        if len(self._rows) == _GROUP or self._held >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Finish."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._held = [], 0


class TableWriter:
    """`data/train-00000.parquet` and so on."""

    def __init__(
        self, out: Path, split: str, asked: Export, columns: Mapping[str, ColumnKind]
    ) -> None:
        self._out, self._split, self._asked = out, split, asked
        self._schema = table_schema(columns, thumbnails=asked.thumbnails is not None)
        self._cutter = Cutter(asked)
        self._shards: list[tuple[str, int]] = []
        self._file = self._next()

    def add(self, sample: Sample) -> None:
        """Write one more."""
        if self._cutter.full(len(sample.picture)):
            self._file.close()
            self._file = self._next()
        self._file.add(sample)
        name, count = self._shards[-1]
        self._shards[-1] = (name, count + 1)

    def close(self) -> list[tuple[str, int]]:
        """Finish."""
        self._file.close()
        return self._shards

    def _next(self) -> TableFile:
        name = f"data/{self._split}-{len(self._shards):05d}.parquet"
        (self._out / name).parent.mkdir(exist_ok=True)
        self._shards.append((name, 0))
        return TableFile(self._out / name, self._schema, self._asked.thumbnails)


def columns_of(sample: Sample) -> dict[str, Any]:
    """A row's columns by the names that they have beside a picture."""
    row = {_NAMES.get(name, name): value for name, value in sample.row.items()}
    row.pop("file_name")
    return {CAPTION: row["prompt"], **row}


def table_schema(columns: Mapping[str, ColumnKind], *, thumbnails: bool) -> pa.Schema:
    """The schema of the parquet form, with what tells `datasets` which columns are pictures."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [pa.field("image", picture)]
    fields += [pa.field("thumbnail", picture)] if thumbnails else []
    fields.append(pa.field(CAPTION, pa.string()))
    for one in json_schema(columns):
        if one.name != "file_name":
            fields.append(pa.field(_NAMES.get(one.name, one.name), one.type))
    features = {field.name: _feature(field.type, picture) for field in fields}
    told = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": told})


def _feature(kind: Any, picture: Any) -> dict[str, Any]:
    if kind == picture:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type, picture)}
    names = {pa.float64(): "float64", pa.int64(): "int64", pa.bool_(): "bool"}
    return {"dtype": names.get(kind, "string"), "_type": "Value"}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
