"""A picture made again from its row: the same bytes, or how far it is from them and why."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from fewstep.cli import app
from jobs.catalog import Catalog
from jobs.client import Client
from jobs.errors import InvalidInput, NotFound
from jobs.extend import extend_job
from jobs.fetch import fetch_dataset
from jobs.job import ExtensionRequest, Job, JobRequest
from jobs.original import Original
from jobs.original_rows import fetched_original, read_original
from jobs.recipe import RecipeRequest, StyleWeight
from jobs.settings import Settings
from jobs.store import Store
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi
from tests.flow.one_machine import PREFIX, House, table_rows
from tests.servers import wait_until
from workers.engine import Engine
from workers.repro import compare, make_again

#: What a store keeps is the same bytes, whichever it is.
one_store = pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)


@pytest.fixture
def house(redis_url: str, store: Store, catalog: Catalog, engine: Engine) -> House:
    return House(redis_url, store, catalog, engine)


def rendered(house: House, out: Path, **request: Any) -> Job:
    """Three pictures in two shards, fetched into `out`."""
    asked = JobRequest(recipe=RecipeRequest(steps=1), seed=3, shard_images=2, **request)
    job = house.submit("a red circle\na blue star\na green ring", asked)
    house.render(job)
    fetch_dataset(house.store, house.layout(job), out)
    return job


def run(*words: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["repro", *words, "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout else {}


@one_store
@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_a_picture_comes_out_again_byte_for_byte(house: House, tmp_path: Path, form: Any) -> None:
    rendered(house, tmp_path / "out", format=form)

    status, said = run(f"{tmp_path / 'out'}/000010000", "--out", str(tmp_path / "again"))

    assert (status, said["verdict"], said["max_abs"], said["mean_abs"]) == (0, "equal", 0, 0.0)
    original, theirs = fetched_original(tmp_path / "out", "000010000")
    assert (tmp_path / "again").read_bytes() == theirs
    assert original.image.row.prompt == "a green ring"
    # The renderer of this test calls its device and its libraries by other names.
    assert said["unlike"]["device"]["row"] == "cpu"
    assert said["unlike"]["torch"]["row"] == "test"
    assert not said["unlike"].keys() & {"model_sha256", "accelerator_sha256", "batch_images"}


@one_store
def test_another_picture_is_told_apart(house: House, tmp_path: Path) -> None:
    """The same row with another seed: as a machine would that draws other noise."""
    job = rendered(house, tmp_path / "out")
    original, theirs = fetched_original(tmp_path / "out", "000000001")
    assert read_original(house.store, house.layout(job), job, "000000001").image == original.image
    other = original.row | {"seed": original.row["seed"] + 1, "model_sha256": "ab"}

    done = make_again(Original(job=job, row=other), theirs, Settings(), tolerance=1)

    assert (done.verdict, done.agrees) == ("different", False)
    assert done.difference is not None
    assert done.difference.max_abs > 100
    assert 0 < done.difference.mean_abs < done.difference.max_abs
    assert done.unlike["model_sha256"] == ("ab", house.engine.model_sha256)


@one_store
def test_an_extension_renders_what_a_larger_job_would_have(house: House, tmp_path: Path) -> None:
    job = rendered(house, tmp_path / "before", repeats=1)
    more = extend_job(
        house.store,
        house.queue,
        house.catalog,
        prefix=PREFIX,
        tenant="default",
        job_id=job.id,
        request=ExtensionRequest(repeats=1),
        idempotency_key="more",
        now_ms=1_700_000_100_000,
    )
    with house.rendering(job):
        wait_until(lambda: more.id in house.queue.finishing(), "the last shard", 60)
    house.finish()
    fetch_dataset(house.store, house.layout(job), tmp_path / "extended")
    rendered(house, tmp_path / "larger", repeats=2)

    def pictures(folder: str) -> dict[tuple[int, int], str]:
        rows = table_rows(tmp_path / folder)
        return {(row["row"], row["repeat"]): row["sha256"] for row in rows}

    assert pictures("extended") == pictures("larger")
    assert len(set(pictures("extended").values())) == 6


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]], level: int = 6) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(pixels).save(out, "PNG", compress_level=level)
    return out.getvalue()


def test_pixels_are_compared_where_bytes_differ() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    near = pixels.copy()
    near[1, 2, 0] = 2
    one = png(pixels)

    assert compare(one, png(pixels, 0), 0)[0] == "same_pixels"
    assert compare(one, png(near), 2)[0] == "close"
    verdict, apart = compare(one, png(near), 1)
    assert verdict == "different"
    assert apart is not None
    assert (apart.max_abs, apart.mean_abs) == (2, 2 / 48)
    assert compare(one, png(pixels[:2]), 255) == ("different", None)


@one_store
def test_what_names_no_picture_is_refused(house: House, tmp_path: Path) -> None:
    rendered(house, tmp_path / "out")
    folder = str(tmp_path / "out")

    assert run("000000001")[0] == 2
    assert run(f"{folder}/1")[0] == 2
    assert run(f"{tmp_path}/000000001")[0] == 2
    assert run(f"{folder}/000020000")[0] == 4
    with pytest.raises(NotFound):
        fetched_original(tmp_path / "out", "000010001")
    original, theirs = fetched_original(tmp_path / "out", "000010000")
    with pytest.raises(InvalidInput, match="not the one that the row tells of"):
        make_again(original, theirs + b"x", Settings())


def test_the_api_tells_of_a_picture(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of made-up pictures: whatever is rendered here is another one, and that is said."""
    with Client(api.url) as client:
        asked = JobRequest(recipe=RecipeRequest(steps=1, styles=(StyleWeight(name="outline"),)))
        job_id = client.submit(asked, ["a red circle", "poison"]).id
        render_shards(api, job_id, failed=[1])
        finish_dataset(api, job_id)
        original = client.original(job_id, "000000000")
        with pytest.raises(NotFound):
            client.original(job_id, "000000002")
    assert original.job.recipe.styles[0].name == "outline"
    assert original.row["seed"] == original.image.seed
    monkeypatch.setenv("FEWSTEP_API_URL", api.url)

    status, said = run(f"{job_id}/000000000")
    failed = run(f"{job_id}/000000001")

    assert (status, said["verdict"]) == (1, "different")
    assert said["key"] == f"{job_id}/000000000"
    assert said["unlike"]["model_sha256"]["row"] == "ab" * 32
    assert failed == (2, {})
