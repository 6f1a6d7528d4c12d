"""Exports: every form is read by the programs that people train with, and holds what it should."""

import hashlib
import io
import json
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import webdataset
from datasets import load_dataset
from PIL import Image
from typer.testing import CliRunner

from fewstep.cli import app
from jobs.errors import InvalidInput
from jobs.exports.asked import Export
from jobs.exports.exporting import Exported, export_dataset
from jobs.exports.samples import Fetched, Sample
from jobs.exports.writers import FolderWriter, columns_of, table_schema
from jobs.fetch import fetch_dataset
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.templates.expansion import TemplateRequest
from jobs.templates.template import Template
from tests.rendered_jobs import Workshop
from tests.s3_servers import settings_for
from tests.servers import RedisServer

TEMPLATE = TemplateRequest(
    template="a {{color}} {{shape}}",
    lists={"color": ("red", "blue", "deep sky"), "shape": ("circle", "star", "x/y")},
)


@pytest.fixture(scope="module")
def fetched(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, moto_url: str
) -> Iterator[Fetched]:
    """A dataset of nine prompts, three pictures each, two of which failed."""
    with ExitStack() as open_:
        store = open_.enter_context(
            closing(Store.connect(settings_for(moto_url), create_bucket=True))
        )
        client = open_.enter_context(control_client(redis_server.url))
        client.flushall()
        yield made_dataset(Workshop(ShardQueue(client), store, broken={4, 20}), tmp_path_factory)
        store.delete(found.key for found in store.list(""))


def made_dataset(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    job = shop.submit(Template.of(TEMPLATE), repeats=3, shard_images=10, name="Shapes | all")
    shop.render(job)
    shop.finish()
    folder = tmp_path_factory.mktemp("dataset")
    fetch_dataset(shop.store, shop.layout(job), folder)
    return Fetched.at(folder)


def exported(fetched: Fetched, out: Path, form: str, **more: Any) -> Exported:
    return export_dataset(fetched, out, Export(form=form, **more))  # type: ignore[arg-type]


def loaded(out: Path, split: str = "train") -> Any:
    return load_dataset(str(out), split=split, cache_dir=str(out.parent / f"{out.name}-cache"))


def source_rows(fetched: Fetched) -> dict[str, dict[str, Any]]:
    return {sample.key: sample.row for sample in fetched.samples()}


FORMS = ["webdataset", "imagefolder", "parquet"]


@pytest.mark.parametrize("form", FORMS)
def test_datasets_reads_every_form(
    fetched: Fetched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    out = tmp_path / form
    out.mkdir()
    done = exported(fetched, out, form, validation=0.3)
    rows = source_rows(fetched)
    assert sum(done.pictures.values()) == len(rows) == 25
    assert all(done.pictures.values())
    prompts: dict[str, set[str]] = {}
    for split, count in done.pictures.items():
        found = loaded(out, split)
        assert len(found) == count
        for one in found:
            row = one["json"] if form == "webdataset" else one
            picture = one["png" if form == "webdataset" else "image"]
            expected = rows[row["key"]]
            assert picture.size == (expected["width"], expected["height"])
            assert one["txt" if form == "webdataset" else "text"] == expected["prompt"]
            for name in ("seed", "color", "shape", "combination", "sha256", "engine_key"):
                assert row[name] == expected[name]
            prompts.setdefault(split, set()).add(expected["prompt"])
    assert not prompts["train"] & prompts["validation"]


# webdataset leaves the files it reads to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", FORMS)
def test_the_pictures_are_the_same_bytes(fetched: Fetched, tmp_path: Path, form: str) -> None:
    exported(fetched, tmp_path, form)
    digests = Counter(row["sha256"] for row in source_rows(fetched).values())
    if form == "webdataset":
        tars = [str(path) for path in sorted((tmp_path / "train").glob("*.tar"))]
        found = [sample["png"] for sample in webdataset.WebDataset(tars, shardshuffle=False)]
    elif form == "imagefolder":
        found = [path.read_bytes() for path in (tmp_path / "train").rglob("*.png")]
    else:
        table = pq.read_table(tmp_path / "data" / "train-00000.parquet")
        found = [one["bytes"] for one in table["image"].to_pylist()]
    assert Counter(hashlib.sha256(data).hexdigest() for data in found) == digests


def test_folders_are_labels_as_torchvision_reads_them(fetched: Fetched, tmp_path: Path) -> None:
    exported(fetched, tmp_path, "imagefolder", label="shape", thumbnails=16)
    folders = {path.name for path in (tmp_path / "train").iterdir() if path.is_dir()}
    assert folders == {"circle", "star", "x_y"}
    for line in (tmp_path / "train" / "metadata.jsonl").read_text().splitlines():
        told = json.loads(line)
        folder, name = told["file_name"].split("/")
        assert folder == told["shape"].replace("/", "_")
        assert name == f"{told['key']}.png"
        assert (tmp_path / "train" / folder / name).is_file()
    small = list((tmp_path / "thumbnails").rglob("*.jpg"))
    assert len(small) == 25
    with Image.open(small[0]) as picture:
        assert max(picture.size) == 16
    with pytest.raises(InvalidInput, match="no column 'size'"):
        exported(fetched, tmp_path, "imagefolder", label="size")


def test_columns_and_labels_of_a_source_hide_nothing_of_ours(tmp_path: Path) -> None:
    row = {"prompt": "p", "image": 3, "file_name": "k.png", "text": "theirs", "kind": "猫"}
    one = Sample("k", "png", b"", row)
    told = columns_of(one)
    assert (told["text"], told["source_text"], told["image_index"]) == ("p", "theirs", 3)
    names = table_schema({"text": "string"}, thumbnails=True).names
    assert len(names) == len(set(names))
    assert {"text", "source_text"} <= set(names)
    writer = FolderWriter(tmp_path, "train", Export(form="imagefolder", label="kind"))
    writer.add(one)
    assert (tmp_path / "train" / "猫" / "k.png").is_file()
    writer.add(replace(one, row=row | {"kind": "a b"}))
    with pytest.raises(InvalidInput, match="'a b' and 'a_b' would both lie in 'a_b'"):
        writer.add(replace(one, row=row | {"kind": "a_b"}))
    writer.close()


def test_shards_are_cut_by_pictures_and_by_bytes(fetched: Fetched, tmp_path: Path) -> None:
    for name in ("images", "bytes", "tables"):
        (tmp_path / name).mkdir()
    by_images = exported(fetched, tmp_path / "images", "webdataset", shard_images=10, thumbnails=16)
    assert by_images.shards == 3
    index = json.loads((tmp_path / "images" / "train.json").read_text())
    assert index["__kind__"] == "wids-shard-index-v1"
    assert [(one["url"], one["nsamples"]) for one in index["shardlist"]] == [
        ("train/00000.tar", 10),
        ("train/00001.tar", 10),
        ("train/00002.tar", 5),
    ]
    for one in index["shardlist"]:
        assert (tmp_path / "images" / one["url"]).stat().st_size == one["filesize"]
    # Shards of a byte each are not to be had by request: they are for large pictures.
    tiny = Export(form="webdataset").model_copy(update={"shard_bytes": 1})
    assert export_dataset(fetched, tmp_path / "bytes", tiny).shards == 25
    exported(fetched, tmp_path / "tables", "parquet", shard_images=7, thumbnails=16)
    tables = sorted((tmp_path / "tables" / "data").glob("*.parquet"))
    assert [path.name for path in tables] == [f"train-{n:05d}.parquet" for n in range(4)]
    rows = pyarrow.dataset.dataset([str(path) for path in tables]).to_table()
    assert len(rows) == 25
    with Image.open(io.BytesIO(rows["thumbnail"][0].as_py()["bytes"])) as picture:
        assert max(picture.size) == 16


def test_a_split_does_not_depend_on_the_form_or_the_rest(fetched: Fetched) -> None:
    few, many = Export(form="parquet", validation=0.1), Export(form="webdataset", validation=0.4)
    prompts = [f"prompt {n}" for n in range(2_000)]
    first = {prompt for prompt in prompts if few.split_of(prompt) == "validation"}
    second = {prompt for prompt in prompts if many.split_of(prompt) == "validation"}
    assert first < second
    assert 140 < len(first) < 260
    assert 700 < len(second) < 900


def test_a_name_in_a_tar_never_becomes_a_path(fetched: Fetched, tmp_path: Path) -> None:
    shutil.copytree(fetched.folder, tmp_path / "in")
    with tarfile.open(tmp_path / "in" / "train" / "00000.tar", "w") as tar:
        for name in ("../../000000001.png", "../../000000001.json"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"{}"))
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInput, match="no name of a sample"):
        exported(Fetched.at(tmp_path / "in"), tmp_path / "out", "imagefolder")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (
            {"000000001.png": b"x", "000000002.json": b"{}"},
            "000000002.json stands beside no picture",
        ),
        ({"000000001.json": b"{}"}, "beside no picture"),
        ({"000000001.png": b"x", "000000001.json": b"[" * 9_000}, "000000001.json is not JSON"),
        ({"000000001.png": b"x", "000000001.json": b'{"prompt": 5}'}, "is no row"),
    ],
)
def test_a_tar_whose_members_do_not_belong_together_is_refused(
    fetched: Fetched, tmp_path: Path, members: dict[str, bytes], says: str
) -> None:
    """A picture never goes under another one's row."""
    shutil.copytree(fetched.folder, tmp_path / "in")
    with tarfile.open(tmp_path / "in" / "train" / "00000.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(InvalidInput, match=says):
        list(Fetched.at(tmp_path / "in").samples())


def test_few_large_pictures_make_a_group_of_rows(
    fetched: Fetched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held in memory is bounded by bytes, too."""
    largest = max(len(sample.picture) for sample in fetched.samples())
    monkeypatch.setattr("jobs.exports.writers._GROUP_BYTES", largest)
    exported(fetched, tmp_path, "parquet")
    (table,) = (pq.ParquetFile(path) for path in (tmp_path / "data").iterdir())
    groups = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
    assert sum(groups) == 25
    assert max(groups) <= 3


def test_the_card_says_what_it_is(fetched: Fetched, tmp_path: Path) -> None:
    exported(fetched, tmp_path, "parquet")
    card = (tmp_path / "README.md").read_text()
    assert "data/train-*.parquet" in card
    assert fetched.job.recipe.licences[0].licence in card
    grid = re.search(r"!\[.*\]\((.*)\)", card)
    assert grid is not None
    with Image.open(tmp_path / grid[1]) as picture:
        assert picture.width > 500


def test_the_command(fetched: Fetched, tmp_path: Path) -> None:
    words = ["export", str(fetched.folder), "--out", str(tmp_path / "o"), "--as", "imagefolder"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pictures"] == {"train": 25}
    assert CliRunner().invoke(app, words).exit_code == 2, "the folder is not empty"
    for wrong in (["--as", "zip"], ["--validation", "0.9"], ["--thumbnails", "3"]):
        bad = CliRunner().invoke(app, [*words[:3], str(tmp_path / "p"), *words[4:], *wrong])
        assert bad.exit_code == 2
    nothing = CliRunner().invoke(app, ["export", str(tmp_path / "o"), *words[2:]])
    assert nothing.exit_code == 2
    assert "fetch it first" in nothing.output


def test_croissant_names_files_and_columns_that_are_there(fetched: Fetched) -> None:
    told = json.loads((fetched.folder / "croissant.json").read_text())
    assert told["@type"] == "sc:Dataset"
    index = (fetched.folder / "index.json").read_bytes()
    files = {one["@id"]: one for one in told["distribution"]}
    assert files["dataset"]["sha256"] == hashlib.sha256(index).hexdigest()
    tables = sorted(fetched.folder.glob(files["tables"]["includes"]))
    assert len(tables) == len(list(fetched.folder.glob(files["tars"]["includes"]))) == 3
    schema = pq.read_schema(tables[0])
    (records,) = told["recordSet"]
    named = {one["name"]: one for one in records["field"]}
    columns = {one["source"]["extract"].get("column") for one in records["field"]} - {None}
    assert columns == set(schema.names)
    assert {one["source"]["fileSet"]["@id"] for one in records["field"]} <= set(files)
    kinds = (named["seed"], named["color"], named["guidance"], named["created"])
    assert [one["dataType"] for one in kinds] == [
        "sc:Integer",
        "sc:Text",
        "sc:Float",
        "sc:DateTime",
    ]
    assert named["styles"]["repeated"] is True
    assert all(one["@id"] == f"rows/{name}" for name, one in named.items())
