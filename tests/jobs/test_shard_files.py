"""A shard's tar and parquet are the same bytes each time, and trusted readers read them."""

import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from datasets import load_dataset

from jobs.job import Job
from jobs.records import Picture
from jobs.rows import Row
from jobs.shard_row import (
    QUARANTINE_ONLY,
    RESERVED_COLUMNS,
    ShardRow,
    own_columns,
    schema_of,
    shard_row,
)
from jobs.shard_table import build_table
from jobs.shard_tar import build_tar, read_tar
from tests.made_shards import MAKER, made_job, made_layout, made_picture, made_pictures, unit_of

JOB: Job = made_job(columns={"topic": "string", "size": "int", "big": "float", "good": "bool"})
LAYOUT = made_layout(JOB)
UNIT = unit_of(JOB, "1")
EXTRA = {"topic": 7, "size": 3, "big": 2, "good": True}
PICTURES = [
    made_picture(JOB, 4, row=Row(prompt="a", extra=EXTRA)),
    made_picture(JOB, 5, failed=True),
    made_picture(JOB, 6, row=Row(prompt="línea\nzwei 🌍", extra={"topic": None})),
    made_picture(JOB, 7),
]

#: Both readers leave their files to the garbage collector.
LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def rows_of(pictures: list[Picture]) -> list[ShardRow]:
    return [shard_row(JOB, LAYOUT, UNIT, picture.record, MAKER) for picture in pictures]


@pytest.fixture
def tar_path(tmp_path: Path) -> Path:
    """The shard's tar on disk."""
    path = tmp_path / "00001.tar"
    path.write_bytes(build_tar(PICTURES, rows_of(PICTURES)))
    return path


def test_the_same_pictures_make_the_same_bytes() -> None:
    assert build_tar(PICTURES, rows_of(PICTURES)) == build_tar(PICTURES, rows_of(PICTURES))
    tables = [build_table(rows_of(PICTURES), JOB.rows.columns, 1.5) for _ in range(2)]
    assert tables[0] == tables[1]


def test_the_order_of_the_arguments_does_not_matter() -> None:
    back = PICTURES[::-1]

    assert build_tar(back, rows_of(back)) == build_tar(PICTURES, rows_of(PICTURES))
    assert build_table(rows_of(back), JOB.rows.columns, None) == build_table(
        rows_of(PICTURES), JOB.rows.columns, None
    )


def test_a_tar_holds_the_whole_row_of_each_picture_made(tar_path: Path) -> None:
    rows = read_tar(tar_path.read_bytes())

    made = [row for row in rows_of(PICTURES) if row["status"] == "ok"]
    assert rows == made
    assert RESERVED_COLUMNS - QUARANTINE_ONLY - {"upload_ms"} <= rows[0].keys()
    assert rows[0] | {"topic": "7", "size": 3, "big": 2.0, "good": True} == rows[0]
    assert "topic" not in rows[1]


def test_a_file_name_must_be_the_key_and_one_extension() -> None:
    picture = PICTURES[0]
    record = picture.record.model_copy(update={"file_name": "../x.png"})

    with pytest.raises(ValueError, match="no file name"):
        build_tar([Picture(record=record, data=b"1")], rows_of([picture]))


@LEAVES_FILES_OPEN
def test_webdataset_reads_the_tar(tar_path: Path) -> None:
    samples = list(webdataset.WebDataset(str(tar_path), shardshuffle=False).decode("pil"))

    assert [sample["__key__"] for sample in samples] == ["000010000", "000010002", "000010003"]
    assert [sample["json"]["seed"] for sample in samples] == [
        picture.record.seed for picture in PICTURES if picture.data
    ]
    assert samples[1]["txt"] == "línea\nzwei 🌍"
    assert samples[0]["png"].size == (64, 64)


@LEAVES_FILES_OPEN
def test_datasets_reads_the_tar(tar_path: Path, tmp_path: Path) -> None:
    found = load_dataset(
        "webdataset",
        data_files=str(tar_path),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )

    assert [one["__key__"] for one in found] == ["000010000", "000010002", "000010003"]
    assert found[0]["png"].size == (64, 64)
    assert found[0]["json"]["steps"] == JOB.recipe.steps
    assert found[0]["json"]["topic"] == "7"


def test_the_table_has_a_row_for_every_image_and_a_fixed_schema() -> None:
    data = build_table(rows_of(PICTURES), JOB.rows.columns, 1.5)

    table = pq.read_table(BytesIO(data))

    assert table.schema.equals(schema_of(JOB.rows.columns))
    rows = table.to_pylist()
    assert [row["image"] for row in rows] == [4, 5, 6, 7]
    assert [row["status"] for row in rows] == ["ok", "failed", "ok", "ok"]
    assert rows[1]["error"] == "not a number"
    assert (rows[0]["topic"], rows[0]["size"], rows[0]["big"], rows[0]["good"]) == ("7", 3, 2, True)
    assert [row["size"] for row in rows] == [3, None, None, None]
    assert rows[0]["created"] == datetime(2023, 11, 14, 22, 13, 22, 4_000, tzinfo=UTC)
    assert rows[0]["upload_ms"] == 1.5
    assert rows[0]["seed"] == PICTURES[0].record.seed
    assert rows[0]["shard"] == "00001"
    assert rows[0]["model_sha256"] == MAKER.model_sha256
    assert json.loads(rows[0]["sampler_settings"]) == JOB.recipe.sampler_settings


def test_the_schema_does_not_depend_on_the_rows() -> None:
    plain = made_job()
    unit = unit_of(plain, "0")
    failed = made_pictures(plain, unit, failed=range(4))
    rows = [shard_row(plain, made_layout(plain), unit, one.record, MAKER) for one in failed]

    table = pq.read_table(BytesIO(build_table(rows, {}, None)))

    assert table.schema.equals(schema_of({}))
    assert table["upload_ms"].null_count == 4


def test_own_columns_take_the_kind_of_the_column() -> None:
    kinds = JOB.rows.columns

    assert own_columns({"topic": True, "big": 3, "size": None}, kinds) == {
        "topic": "true",
        "big": 3.0,
    }
