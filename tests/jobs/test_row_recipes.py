"""What a row may change of its job's recipe: read, checked, priced, written down, tried again."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import redis

from jobs.again import command_of
from jobs.errors import InvalidInput
from jobs.filters import FilterRequest
from jobs.job import JobRequest
from jobs.layout import JobLayout
from jobs.original import Original
from jobs.recipe import RecipeRequest, RowRecipe
from jobs.retry import retry_failed
from jobs.row_recipe import own_recipe, recipe_for
from jobs.rows import Row, object_row
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import Reading, SourceRows, read_inline, read_rows
from jobs.spool import fetch_rows
from jobs.store import Store
from tests.api_servers import RunningApi
from tests.rendered_jobs import CATALOG, PREFIX, TENANT, Workshop

WIDE = RowRecipe(width=96)


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    return Workshop(ShardQueue(client), store)


def csv(text: str, **reading: Any) -> SourceRows:
    return read_rows(io.BytesIO(text.encode()), "csv", "f.csv", Reading(**reading))


# ---- reading ----


def test_columns_are_settings() -> None:
    found = list(
        csv(
            "prompt,w,height,steps,guidance,sampler\na,96,32,2,1.5,lcm\nb,,,4,1,\nc,,,,,\n",
            columns={"width": "w"},
        )
    )
    assert [row.recipe for row in found] == [
        RowRecipe(width=96, height=32, steps=2, guidance=1.5, sampler="lcm"),
        RowRecipe(steps=4, guidance=1),
        None,
    ]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"width": "96"}, "width '96' is not a whole number"),
        ({"height": 32.5}, "height '32.5' is not a whole number"),
        ({"steps": True}, "steps 'True' is not a whole number"),
        ({"guidance": "high"}, "guidance 'high' is not a number"),
        ({"guidance": float("nan")}, "guidance 'nan' is not a number of a size"),
        ({"guidance": 10**400}, "guidance '1000.*' is not a number of a size"),
        ({"sampler": "fast"}, "sampler 'fast' is not one of lcm, "),
        ({"sampler": ["lcm"]}, "is not one of lcm, "),
        ({"model": "sdxl"}, "'model' cannot be set per row: it is another engine"),
        ({"styles": "outline"}, "submit a job for each"),
        ({"dtype": "float16"}, "another engine"),
    ],
)
def test_what_is_no_setting_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=f"here: .*{says}"):
        object_row({"prompt": "a", **wrong}, "here")


# ---- checking ----


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ("width\na,100", r"f.csv, line 2, width: 100 is not a width.*nearest is 96.*--drop width"),
        ("steps\na,2\nb,9", r"f.csv, line 3, steps: 9 steps are outside"),
        ("guidance\na,7.5", r"f.csv, line 2, guidance: guidance 7.5 is outside"),
        ("sampler\na,euler", r"f.csv, line 2, sampler: this accelerator samples with 'lcm'"),
    ],
)
def test_a_row_is_held_to_what_its_model_and_accelerator_allow(
    shop: Workshop, cells: str, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        shop.submit(csv(f"prompt,{cells}\n"))
    assert list(shop.store.list("")) == []
    with pytest.raises(InvalidInput, match=r"row 2, steps: 9 steps"):
        shop.submit([Row(prompt="a"), Row(prompt="b", recipe=RowRecipe(steps=9))])


def test_a_row_fits_the_jobs_filters_too(shop: Workshop) -> None:
    filters = (FilterRequest(name="prompt_agreement"),)
    shop.submit(csv("prompt,width,steps\na,64,2\n"), filters=filters)
    with pytest.raises(InvalidInput, match=r"f.csv, line 3, .*cannot score such pictures"):
        shop.submit(csv("prompt,width\na,64\nb,96\n"), filters=filters)


def test_bad_settings_are_left_out_where_that_is_asked_for(shop: Workshop) -> None:
    rows = csv("prompt,steps\na,2\nb,9\nc,\n", bad_rows="quarantine")
    job = shop.submit(rows, source=Reading(bad_rows="quarantine"))
    found = fetch_rows(shop.store, job, 0, job.rows.count)
    assert [(row.prompt, row.recipe) for row in found] == [("a", RowRecipe(steps=2)), ("c", None)]
    assert job.rows.rejected == 1


def test_without_an_accelerator_a_row_may_have_another_sampler(shop: Workshop) -> None:
    bare = RecipeRequest(accelerator="none", sampler="ddim", steps=10)
    job = shop.submit(csv("prompt,sampler\na,euler\nb,tcd\n"), recipe=bare)
    euler, tcd = (row.recipe for row in fetch_rows(shop.store, job, 0, 2))
    assert recipe_for(job.recipe, euler).sampler_settings == {}
    assert recipe_for(job.recipe, tcd).sampler_settings == {"eta": 0.3}
    with_eta = bare.model_copy(update={"sampler": "tcd", "eta": 0.5})
    with pytest.raises(InvalidInput, match="line 2, eta: the sampler 'euler' has no eta"):
        shop.submit(csv("prompt,sampler\na,euler\n"), recipe=with_eta)


# ---- what it costs ----


def test_settings_are_priced(shop: Workshop) -> None:
    """UNet calls and decoding by the area: two steps of four are (2 + 2) of (4 + 2)."""
    plain = shop.submit([Row(prompt="a")])
    mixed = shop.submit(csv("prompt,steps,width\na,,\nb,2,\nc,,128\n"))
    assert (plain.rows.recipes, plain.rows.cost) == (0, 1.0)
    assert mixed.rows.recipes == 2
    assert mixed.rows.cost == pytest.approx((1 + 4 / 6 + 2) / 3)
    costs = [shop.record(job.id).unit_cost for job in (plain, mixed)]
    assert costs[1] / costs[0] == pytest.approx(mixed.rows.cost)


def test_pages_without_settings_are_what_they_were(shop: Workshop) -> None:
    job = shop.submit([Row(prompt="a", extra={"x": 1})])
    page = JobLayout.page(job.rows.prefix, 0)
    assert json.loads(shop.store.get(page)).keys() == {
        "prompt",
        "negative_prompt",
        "seed",
        "extra",
    }


def test_a_dry_run_counts_them(api: RunningApi) -> None:
    from jobs.client import Client

    with Client(api.url) as client:
        found = client.dry_run(JobRequest(), [{"prompt": "a", "width": 128}, "b"])
    assert found.relative_cost == 1.5
    assert found.preview[0].recipe == RowRecipe(width=128)


# ---- what is written, and tried again ----


def test_a_retry_keeps_what_a_row_says(shop: Workshop) -> None:
    rows = read_inline([{"prompt": "a", "width": 96, "steps": 2}, {"prompt": "b"}])
    job = shop.submit(rows, recipe=RecipeRequest(steps=4))
    shop.broken = {0, 1}
    shop.render(job)
    shop.finish()
    told = [(row["width"], row["height"], row["steps"]) for row in shop.rows(job, "quarantine")]
    assert told == [(96, 64, 2), (64, 64, 4)]
    shop.broken = set()
    asked: dict[str, Any] = {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": 1}
    again = retry_failed(shop.store, shop.queue, **asked, idempotency_key="a")
    [lease] = shop.queue.claim("w", "n", job.recipe.engine_key, 1, 60_000)
    assert lease.job_id == again.id
    _, _, _, images = shop.unit_of(lease)
    assert [image.row.recipe for image in images] == [RowRecipe(width=96, steps=2), None]
    shop.say_done(lease, shop.commit(lease))
    shop.finish()
    row = next(row for row in shop.rows(job) if row["image"] == 0 and row["status"] == "ok")
    assert (row["width"], row["steps"], row["unet_calls"]) == (96, 2, 2)
    assert own_recipe(job.recipe, row) == RowRecipe(width=96, steps=2)
    original = Original(job=job, row=row)
    assert original.recipe == recipe_for(job.recipe, RowRecipe(width=96, steps=2))
    line = command_of(CATALOG, job, "a", "", 7, own_recipe(job.recipe, row))
    assert '{"prompt": "a", "seed": 7, "width": 96, "steps": 2}' in line
    card = shop.store.get(shop.layout(job).card).decode()
    assert "settings by row" in card


def test_an_older_quarantine_says_nothing_of_settings(shop: Workshop) -> None:
    job = shop.submit([Row(prompt="a")])
    assert own_recipe(job.recipe, {"prompt": "a"}) is None


def test_repeats_count_before_templates_as_they_do_in_the_api(tmp_path: Path) -> None:
    from fewstep.request import count_rows
    from jobs.templates.expansion import Expansion

    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "{a|b}", "repeats": 3, "width": 96}\n', "utf-8")
    assert count_rows(path, JobRequest(expand=Expansion())) == 6
