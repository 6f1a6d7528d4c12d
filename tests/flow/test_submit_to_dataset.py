"""The tutorial: prompts in, a dataset out, read by the readers people really use."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from datasets import load_dataset
from diffusers import LCMScheduler, StableDiffusionPipeline
from PIL import Image as Pillow

from jobs.catalog import Catalog
from jobs.fetch import fetch_dataset
from jobs.job import Job, JobRequest
from jobs.store import Store
from tests.flow.one_machine import House, table_rows
from workers import tiny
from workers.engine import Engine

ROWS = [
    {"prompt": "a big red circle in the centre on a white background", "label": "circle"},
    {"prompt": "a small blue star on the left on a beige background", "seed": 4_294_967_295},
    {"prompt": "zażółć 日本 🎨", "label": None, "score": 0.5},
]


@pytest.fixture
def house(redis_url: str, store: Store, catalog: Catalog, engine: Engine) -> House:
    return House(redis_url, store, catalog, engine)


def rendered(house: House, out: Path, request: JobRequest, *, renderers: int = 1) -> Job:
    """Submit `ROWS`, render, finish and fetch into `out`."""
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    job = house.submit(lines, request, source="jsonl")
    house.render(job, renderers)
    fetch_dataset(house.store, house.layout(job), out)
    return job


def pictures(out: Path) -> dict[int, bytes]:
    """Picture bytes by image index, from the tars."""
    found: dict[int, bytes] = {}
    for path in sorted((out / "train").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member) for member in tar}
            for name, file in members.items():
                picture = members.get(name.replace(".json", ".png"))
                if name.endswith(".json") and file and picture:
                    found[json.load(file)["image"]] = picture.read()
    return found


# webdataset leaves the files it reads to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_dataset_is_whole_and_readable(house: House, tmp_path: Path) -> None:
    job = rendered(house, tmp_path, JobRequest(repeats=6, seed=5, shard_images=7))
    assert job.images == 18
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    stems = [f"train/{shard:05d}" for shard in range(3)]
    files = {f"{stem}{end}" for stem in stems for end in (".tar", ".parquet", "_stats.json")}
    about = {"README.md", "job.json", "index.json", "timing.json", "_SUCCESS"}
    assert files | about | {"previews/contact_sheet.png"} <= names

    rows = table_rows(tmp_path)
    assert sorted(row["image"] for row in rows) == list(range(18))
    assert {row["status"] for row in rows} == {"ok"}
    by_image = {row["image"]: row for row in rows}
    assert by_image[6]["seed"] == 4_294_967_295
    assert by_image[0]["label"] == "circle"
    assert by_image[12]["score"] == 0.5

    tars = [str(path) for path in sorted((tmp_path / "train").glob("*.tar"))]
    loaded: Any = load_dataset(
        "webdataset", data_files={"train": tars}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 18
    assert loaded[0]["txt"] == ROWS[0]["prompt"]
    assert loaded[0]["png"].size == (64, 64)

    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["txt"].decode() for sample in samples[::6]] == [row["prompt"] for row in ROWS]

    timing = json.loads((tmp_path / "timing.json").read_text())
    assert timing["images"] == 18
    index = json.loads((tmp_path / "index.json").read_text())
    assert sum(shard["count"] for shard in index["shards"]) == 18


def test_a_row_is_enough_to_make_its_picture_again(house: House, tmp_path: Path) -> None:
    """Plain diffusers, told what the parquet row says, is within 1/255."""
    rendered(house, tmp_path, JobRequest(repeats=2, seed=9))
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.MODEL_DIR, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = LCMScheduler.from_config(
        pipeline.scheduler.config, original_inference_steps=25
    )
    pipeline.load_lora_weights(tiny.LCM_LORA_DIR)
    found = pictures(tmp_path)
    for row in table_rows(tmp_path):
        again = pipeline(
            row["prompt"],
            num_inference_steps=row["steps"],
            guidance_scale=row["guidance"],
            width=row["width"],
            height=row["height"],
            generator=torch.Generator().manual_seed(row["seed"]),
        ).images[0]
        picture = np.asarray(Pillow.open(io.BytesIO(found[row["image"]]))).astype(int)
        assert np.abs(np.asarray(again).astype(int) - picture).max() <= 1, row["prompt"]


@pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)
def test_shards_and_renderers_do_not_touch_pixels(house: House, tmp_path: Path) -> None:
    """Another shard size and another number of renderers: the picture files are bit-equal."""
    rendered(house, tmp_path / "a", JobRequest(repeats=7, seed=3, shard_images=21))
    rendered(house, tmp_path / "b", JobRequest(repeats=7, seed=3, shard_images=4), renderers=2)
    first, second = pictures(tmp_path / "a"), pictures(tmp_path / "b")
    assert sorted(first) == list(range(21))
    assert first == second


def test_the_file_tells_how_it_was_made(house: House, tmp_path: Path) -> None:
    rendered(house, tmp_path, JobRequest(seed=2))
    picture = Pillow.open(io.BytesIO(pictures(tmp_path)[1]))
    told = json.loads(picture.info["fewstep"])
    assert (told["seed"], told["steps"], told["accelerator"]) == (4_294_967_295, 4, "lcm-tiny")
    assert "Steps: 4" in picture.info["parameters"]
