"""Rows with sizes, steps and guidance of their own, beside each other in the shards of one job."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from jobs.catalog import Catalog
from jobs.exports.asked import Export
from jobs.exports.exporting import export_dataset
from jobs.exports.samples import Fetched
from jobs.extend import extend_job
from jobs.fetch import fetch_dataset
from jobs.job import ExtensionRequest, Job, JobRequest
from jobs.recipe import RecipeRequest
from jobs.sources.reading import read_rows
from jobs.store import Store
from tests.flow.one_machine import PREFIX, House, table_rows
from tests.flow.test_submit_to_dataset import pictures
from tests.servers import wait_until
from workers.engine import Engine

#: Settings of a row -> what it says.
SETTINGS: list[dict[str, Any]] = [{}, {"width": 96}, {"steps": 2}, {"guidance": 1.5, "height": 32}]
PROMPTS = ["a big red circle on white", "a small blue star on beige", "a green square on black"]


@pytest.fixture
def house(redis_url: str, store: Store, catalog: Catalog, engine: Engine) -> House:
    return House(redis_url, store, catalog, engine)


def lines(settings: list[dict[str, Any]]) -> str:
    """Each prompt with each of the settings in turn, and a seed of its own."""
    rows = [
        {"prompt": prompt, "negative_prompt": "blur", "seed": 100 + at, "at": at, **own}
        for at, prompt in enumerate(PROMPTS)
        for own in settings
    ]
    return "\n".join(map(json.dumps, rows))


def made(house: House, job: Job, out: Path) -> list[dict[str, Any]]:
    """The rows of the job, each with the file of its picture."""
    fetch_dataset(house.store, house.layout(job), out)
    files = pictures(out)
    rows = sorted(table_rows(out), key=lambda row: int(row["image"]))
    return [row | {"file": files[row["image"]]} for row in rows]


@pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)
def test_neighbours_with_other_settings_touch_no_bit(house: House, tmp_path: Path) -> None:
    """A mixed job makes the same files as a job for each of the settings."""
    mixed = house.submit(lines(SETTINGS), JobRequest(repeats=2, shard_images=9), source="jsonl")
    assert (mixed.rows.recipes, mixed.images) == (3, 24)
    assert any("3 different settings" in text for text in mixed.warnings)
    house.render(mixed, renderers=2)
    together = made(house, mixed, tmp_path / "mixed")
    assert {row["status"] for row in together} == {"ok"}
    for number, own in enumerate(SETTINGS):
        request = JobRequest(recipe=RecipeRequest(**own), repeats=2)
        job = house.submit(lines([{}]), request, source="jsonl")
        house.render(job)
        alone = made(house, job, tmp_path / f"alone-{number}")
        theirs = [row for row in together if row["row"] % len(SETTINGS) == number]
        columns = ("file", "seed", "width", "height", "steps", "guidance", "unet_calls", "at")
        for name in columns:
            assert [row[name] for row in theirs] == [row[name] for row in alone], (own, name)
        width, height = job.recipe.width, job.recipe.height
        for row in theirs:
            assert Pillow.open(io.BytesIO(row["file"])).size == (width, height)


@pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)
def test_rows_that_are_added_are_rendered_as_those_of_a_larger_job(
    house: House, tmp_path: Path
) -> None:
    prompts = lines([{}, {"steps": 2, "width": 96}]).split("\n")
    request = JobRequest(recipe=RecipeRequest(steps=1), repeats=2, shard_images=4)
    larger = house.submit("\n".join(prompts[:4]), request, source="jsonl")
    house.render(larger)
    job = house.submit("\n".join(prompts[:1]), request, source="jsonl")
    house.render(job)
    more = extend_job(
        house.store,
        house.queue,
        house.catalog,
        prefix=PREFIX,
        tenant="default",
        job_id=job.id,
        request=ExtensionRequest(),
        rows=read_rows(io.BytesIO("\n".join(prompts[1:4]).encode()), "jsonl", "more"),
        idempotency_key="more",
        now_ms=1_700_000_100_000,
    )
    with house.rendering(job):
        wait_until(lambda: more.id in house.queue.finishing(), "the last shard", 60)
    house.finish()

    names = ("row", "repeat", "seed", "width", "height", "steps", "unet_calls", "at", "file")
    grown, whole = (
        [[row[name] for name in names] for row in made(house, one, tmp_path / one.id)]
        for one in (job, larger)
    )
    assert grown == whole
    assert len({row[-1] for row in grown}) == 8
    source = Fetched.at(tmp_path / job.id)
    assert (source.rows, source.job.rows.count) == (4, 1)
    (tmp_path / "out").mkdir()
    export_dataset(source, tmp_path / "out", Export(form="parquet"))
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "8 in train: pictures of 4 prompts" in card
    assert "settings by row | 2" in card
