"""Rows that extend a dataset: what a job's may be, held to the same checks, in its columns."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import redis

from jobs.catalog import Catalog, load_catalog
from jobs.errors import InvalidInput
from jobs.extend import extend_job
from jobs.fetch import fetch_dataset, read_index
from jobs.filters import FilterRequest
from jobs.job import ExtensionRequest, Job, Submission
from jobs.recipe import RecipeRequest
from jobs.results import read_timing
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import Reading, SourceRows, read_rows
from jobs.store import Store
from jobs.sweep import OLD_MS, sweep
from jobs.templates.expansion import Expansion, TemplateRequest
from jobs.templates.template import Template
from tests.rendered_jobs import CATALOG, PREFIX, TENANT, Workshop

pytestmark = pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)

NOW = 1_700_000_100_000
ROWS = [Row(prompt=f"prompt {n}", extra={"topic": n}) for n in range(2)]


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def csv(text: str, **reading: Any) -> SourceRows:
    return read_rows(io.BytesIO(text.encode()), "csv", "f.csv", Reading(**reading))


def extend(
    shop: Workshop,
    job: Job,
    rows: Any = None,
    *,
    key: str = "key",
    catalog: Catalog = CATALOG,
    expand: Expansion | None = None,
    repeats: int = 0,
    **reading: Any,
) -> Submission:
    """Extend the job; text stands for a CSV file of these lines."""
    source = Reading(**reading)
    return extend_job(
        shop.store,
        shop.queue,
        catalog,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=job.id,
        request=ExtensionRequest(repeats=repeats, source=source, expand=expand),
        rows=csv(rows, **reading) if isinstance(rows, str) else rows,
        idempotency_key=key,
        now_ms=NOW,
    )


def done(shop: Workshop, job: Job, broken: Any = ()) -> Job:
    """Render what waits and finish it."""
    shop.broken = set(broken)
    shop.render(job)
    shop.finish()
    return job


def done_job(shop: Workshop, rows: Any = ROWS, **request: Any) -> Job:
    return done(shop, shop.submit(rows, **{"repeats": 2, "shard_images": 4} | request))


def told_of(shop: Workshop, job: Job, name: str) -> Any:
    return json.loads(shop.store.get(f"{shop.layout(job).root}{name}"))


def made(shop: Workshop, job: Job, *names: str) -> dict[tuple[int, int], tuple[Any, ...]]:
    """(row, repeat) -> these columns, of every picture."""
    rows = [row for row in shop.rows(job) if row["status"] == "ok"]
    return {(one["row"], one["repeat"]): tuple(one[name] for name in names) for one in rows}


def scratch(shop: Workshop, job: Job) -> set[str]:
    """Folders of rows that lie there."""
    found = [one.key for one in shop.store.list(f"{shop.layout(job).scratch}rows-")]
    return {key[: key.rindex("/") + 1] for key in found}


# ---- settings, seeds and repeats of their own ----

HEADER = "prompt,topic,width,steps,guidance,seed,repeats\n"
FIRST = "prompt 0,0,,,,,\nprompt 1,1,,,,,\n"
AFTER = "a,7,96,2,,,\nb,8,,,1.5,5,2\n"
MIXED = f"{HEADER}{AFTER}"


def test_they_are_what_a_larger_job_would_have_had(shop: Workshop) -> None:
    names = ("prompt", "seed", "width", "height", "steps", "guidance", "sampler", "topic")
    larger = done_job(shop, csv(f"{HEADER}{FIRST}{AFTER}"))
    job = done_job(shop, csv(f"{HEADER}{FIRST}"))

    asked = extend(shop, job, MIXED)
    cost = (1.5 * 4 / 6 + 2 * 10 / 6) / 3
    assert (asked.images, asked.relative_cost) == (6, pytest.approx(cost, abs=1e-6))
    assert "2 different settings" in asked.warnings[0]
    assert extend(shop, job, MIXED) == asked.model_copy(update={"created": False})
    costs = [shop.record(one).unit_cost for one in (job.id, asked.id)]
    assert costs[1] / costs[0] == pytest.approx(cost)
    done(shop, job, {4})
    retry_failed(
        shop.store,
        shop.queue,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=job.id,
        idempotency_key="again",
        now_ms=NOW,
    )
    done(shop, job)

    assert made(shop, job, *names) == made(shop, larger, *names)
    assert len(made(shop, job)) == 10
    assert read_index(shop.store, shop.layout(job)).rows == 5


def test_a_dataset_tells_each_of_its_settings(shop: Workshop, tmp_path: Path) -> None:
    job = done_job(shop, csv(f"{HEADER}{FIRST}"))
    plain = read_timing(shop.store, shop.layout(job))
    (own,) = plain.settings
    assert (plain.steps, plain.unet_calls_per_step, own.pictures) == (4, 1, 4)

    extend(shop, job, MIXED)
    done(shop, job, {5})

    timing = read_timing(shop.store, shop.layout(job))
    assert (timing.steps, timing.unet_calls_per_step, timing.settings_untold) == (None, None, 0)
    found = [(one.width, one.steps, one.guidance, one.pictures) for one in timing.settings]
    assert sorted(found) == [(64, 4, 1.0, 4), (64, 4, 1.5, 4), (96, 2, 1.0, 1)]
    assert sum(one.unet_calls for one in timing.settings) == timing.unet_calls == 16 + 32 + 2
    stages = [timing.stages[name] for name in ("text_encoding", "denoising", "decode")]
    device_s = sum(stage.sum_ms for stage in stages) / 1000
    assert sum(one.device_seconds for one in timing.settings) == pytest.approx(device_s)
    card = shop.store.get(shop.layout(job).card).decode()
    assert "9 pictures of 5 prompts (2 each)" in card
    assert "| settings by row | 3: each row tells its own |" in card
    assert "| 96 x 64 | lcm, 2 steps, guidance 1: 1 pictures |" in card
    about = told_of(shop, job, "croissant.json")["description"]
    assert "9 pictures of 5 prompts" in about
    assert "steps" not in about


def test_rows_of_an_earlier_version_do_not_say_what_they_were_made_with(shop: Workshop) -> None:
    job = shop.submit(csv("prompt,steps\na,2\nb,\n"))
    shop.render(job)
    stats = f"{shop.layout(job).shards}00000_stats.json"
    manifest = json.loads(shop.store.get(stats))
    del manifest["settings"]
    shop.store.put(stats, json.dumps(manifest).encode())
    shop.finish()

    timing = read_timing(shop.store, shop.layout(job))
    assert (timing.steps, timing.settings, timing.settings_untold) == (None, (), 2)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("steps\na,9", r"f.csv, line 2, steps: 9 steps are outside"),
        ("width\nb,64\na,100", r"f.csv, line 3, width: 100 is not a width.*--drop width"),
        ("sampler\na,euler", r"f.csv, line 2, sampler: this accelerator samples with 'lcm'"),
        ("model\na,sd15", r"f.csv, line 2: 'model' cannot be set per row"),
        ("seed\na,-1", r"f.csv, line 2: seed -1 is not a whole number"),
        ("repeats\na,0", r"f.csv, line 2: repeats 0 is not"),
        ("topic\na,\nb,red", r"f.csv, line 3: the column 'topic' holds string values.*is int"),
        ("color\na,\nb,red", r"f.csv, line 3: the dataset has no column 'color'.*--drop color"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_kept(shop: Workshop, lines: str, says: str) -> None:
    job = done_job(shop)
    before = {one.key: one.etag for one in shop.store.list("")}
    with pytest.raises(InvalidInput, match=says):
        extend(shop, job, f"prompt,{lines}\n")
    assert {one.key: one.etag for one in shop.store.list("")} == before


def test_a_row_fits_the_jobs_filters_and_its_catalog(shop: Workshop) -> None:
    job = done_job(shop, filters=(FilterRequest(name="prompt_agreement"),))
    with pytest.raises(InvalidInput, match=r"f.csv, line 2, .*cannot score such pictures"):
        extend(shop, job, "prompt,width\na,96\n")
    assert extend(shop, job, "prompt,steps\na,2\n").created
    catalog = load_catalog()
    tiny = catalog.models["tiny"].model_copy(update={"batch_images": 3})
    other = catalog.model_copy(update={"models": {**catalog.models, "tiny": tiny}})
    done(shop, job)
    with pytest.raises(InvalidInput, match=r"line 2: the job's model .* is another in the catalog"):
        extend(shop, job, "prompt,steps\na,2\n", key="other", catalog=other)
    assert extend(shop, job, "prompt\na\n", key="plain", catalog=other).created


def test_an_eta_that_nobody_asked_for_stands_in_no_rows_way(shop: Workshop) -> None:
    bare = RecipeRequest(accelerator="none", sampler="tcd", steps=10)
    job = done_job(shop, recipe=bare)
    extend(shop, job, "prompt,sampler,steps\na,euler,60\n")
    done(shop, job)
    assert made(shop, job, "sampler", "steps")[2, 0] == ("euler", 60)
    strict = done_job(shop, recipe=bare.model_copy(update={"eta": 0.7}))
    with pytest.raises(InvalidInput, match="line 2, eta: the sampler 'euler' has no eta"):
        extend(shop, strict, "prompt,sampler\na,euler\n")


# ---- what is left out ----


def test_bad_rows_are_left_out_where_that_is_asked_for(shop: Workshop, tmp_path: Path) -> None:
    bad = {"bad_rows": "quarantine"}
    job = done_job(shop, csv("prompt,topic\na,1\n,2\n", **bad), source=Reading(**bad))
    text = "prompt,topic,steps,seed\nb,3,,\nc,4,9,\nd,4,,-1\n,5,,\ne,6,2,\n"

    asked = extend(shop, job, text, **bad)
    done(shop, job)

    assert asked.images == 4
    assert "3 rows cannot be rendered and are left out" in asked.warnings[0]
    assert [topic for (topic,) in made(shop, job, "topic").values()] == [*"113366"]
    fetch_dataset(shop.store, shop.layout(job), tmp_path)
    lines = (tmp_path / "rejected_rows.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["where"] for line in lines] == [
        *("f.csv, line 3", "f.csv, line 3, steps", "f.csv, line 4", "f.csv, line 5")
    ]
    assert "4 rows of the source could not be rendered" in (tmp_path / "README.md").read_text()
    with pytest.raises(InvalidInput, match="row 1: the dataset has no column 'color'"):
        extend(shop, job, "prompt,color\na,red\n", key="color", **bad)
    with pytest.raises(InvalidInput, match="no prompt in it"):
        extend(shop, job, "prompt,topic\n,1\n", key="none", **bad)
    extend(shop, job, "prompt,color\na,red\n", key="less", drop=("color",))


# ---- templates ----

TEMPLATE = TemplateRequest(template="a {{c}} star", lists={"c": ("red", "blue")})
MORE = TemplateRequest(
    template="a {{c}} ring", lists={"c": ("green", "red")}, mode="sampled", count=3
)


def test_a_template_extends_a_template(shop: Workshop, tmp_path: Path) -> None:
    job = done_job(shop, Template.of(TEMPLATE))
    asked = extend(shop, job, Template.of(MORE))
    assert (asked.images, extend(shop, job, Template.of(MORE)).created) == (6, False)
    done(shop, job)
    extend(shop, job, key="more", repeats=1)
    done(shop, job)

    rows = [*Template.of(TEMPLATE).prompts.rows(0, 2), *Template.of(MORE).prompts.rows(0, 3)]
    assert made(shop, job, "prompt", "c", "combination") == {
        (n, repeat): (row.prompt, row.extra["c"], row.extra["combination"])
        for n, row in enumerate(rows)
        for repeat in range(3)
    }
    fetch_dataset(shop.store, shop.layout(job), tmp_path)
    kept = [
        json.loads((tmp_path / name).read_bytes()) for name in ("template.json", "template-2.json")
    ]
    assert [one["template"] for one in kept] == [TEMPLATE.template, MORE.template]
    (column,) = told_of(shop, job, "coverage.json")["columns"]
    assert all(one["made"] == one["expected"] for one in column["values"])
    assert len(column["values"]) == 3


def test_a_template_needs_its_columns_or_leaves_them_out(shop: Workshop) -> None:
    job = done_job(shop)
    with pytest.raises(InvalidInput, match=r"template: the dataset has no column 'c'.*--drop c"):
        extend(shop, job, Template.of(MORE))
    with pytest.raises(InvalidInput, match="template: the dataset has no column 'combination'"):
        extend(shop, job, Template.of(MORE), drop=("c",))
    assert scratch(shop, job) == {job.rows.prefix}
    extend(shop, job, Template.of(MORE), drop=("c", "combination"))
    done(shop, job)
    assert {topic for (topic,) in made(shop, job, "topic").values()} == {0, 1, None}
    coverage = told_of(shop, job, "coverage.json")
    assert [one["column"] for one in coverage["columns"]] == ["topic"]


def test_rows_that_are_templates_become_rows(shop: Workshop) -> None:
    job = done_job(shop, Template.of(TEMPLATE))
    text = "prompt,c,steps\na {big|small} {{c}} moon,gold,2\n"
    with pytest.raises(InvalidInput, match="row 1: the dataset has no column 'choice_1'"):
        extend(shop, job, text, expand=Expansion())
    extend(shop, job, text, expand=Expansion(), drop=("choice_1",))
    done(shop, job)
    assert {one[0] for one in made(shop, job, "prompt", "steps").values() if one[1] == 2} == {
        "a big gold moon",
        "a small gold moon",
    }
    with pytest.raises(InvalidInput, match="says itself"):
        extend(shop, job, Template.of(MORE), key="both", expand=Expansion())
    with pytest.raises(InvalidInput, match="nothing to expand"):
        extend(shop, job, key="none", repeats=1, expand=Expansion())


# ---- what is counted, and what is left behind ----


def test_rows_that_are_short_after_an_extension_that_was_cut(shop: Workshop) -> None:
    """Two of each row are there; of one more of each, the first two rows' were made."""
    retried = FilterRequest(name="prompt_agreement", policy="retry", at_least=0.5)
    rows = [Row(prompt=f"prompt {n}") for n in range(6)]
    fields = {"filters": (retried,), "accept": 2, "shard_images": 2, "max_failed_rows": 99}
    job = done(shop, shop.submit(rows, **fields), {0, 5})
    layout = shop.layout(job)
    assert read_index(shop.store, layout).rows_short == 2

    asked = extend(shop, job, repeats=1)
    shop.render(job, units=1)
    shop.queue.state(asked.id, "cancel")
    shop.finish()

    assert read_index(shop.store, layout).rows_short == 5
    assert "5 of 6 prompts have fewer than 3\naccepted" in shop.store.get(layout.card).decode()


def test_rows_of_nobody_are_swept(shop: Workshop) -> None:
    job = done_job(shop, csv("prompt,topic\nprompt,0\n"))
    layout = shop.layout(job)
    extend(shop, job, "prompt,topic\na,1\n")
    done(shop, job)
    kept = scratch(shop, job)
    assert len(kept) == 2
    gone = extend(shop, job, "prompt,topic\nb,1\n", key="gone")
    (lost,) = scratch(shop, job) - kept
    pages = {one.key: shop.store.get(one.key) for one in shop.store.list(lost)}
    shop.queue.state(gone.id, "cancel", discard=True)
    shop.finish()
    assert scratch(shop, job) == kept
    # Whoever removed them died on the way; and somebody else before the store knew of the wish.
    for key, data in pages.items():
        shop.store.put(key, data)
    shop.store.put(f"{layout.scratch}rows-0123456789abcdef/000000.jsonl", b"{}")
    now = max(one.modified_ms for one in shop.store.list(layout.scratch))

    assert sweep(shop.store, PREFIX, now).objects == 0
    assert sweep(shop.store, PREFIX, now + OLD_MS + 60_000).objects == len(pages) + 1

    assert scratch(shop, job) == kept
    running = extend(shop, job, "prompt,topic\nc,1\n", key="runs")
    assert sweep(shop.store, PREFIX, now + OLD_MS + 10**9).objects == 0
    done(shop, job)
    assert shop.record(running.id).outcome == "done"
    shop.store.put(layout.round(1), b"{")
    assert sweep(shop.store, PREFIX, now + OLD_MS + 10**9).objects == 0
