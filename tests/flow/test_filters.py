"""Filters between the device and the dataset: real pictures, judged and turned away."""

import io
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from jobs.catalog import Catalog, load_catalog
from jobs.dataset_index import DatasetIndex
from jobs.drop import drop_rows
from jobs.fetch import fetch_dataset
from jobs.filters import FilterRequest
from jobs.finish import facts_of
from jobs.job import Job, JobRequest, image_of, with_try
from jobs.quarantine import quarantine_rows
from jobs.recipe import RecipeRequest
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.settings import Settings
from jobs.store import Store
from jobs.timing import Timing
from tests.flow.one_machine import PREFIX, House, table_rows
from tests.flow.test_datasets_page import blocks_of
from tests.s3_servers import STRICT
from workers.engine import Engine
from workers.tiny.captions import VALUES, Attributes
from workers.tiny.classifier import agreement, read, shipped_judge
from workers.tiny.scorer import _every_prompt, drawn_prompts

FAST = RecipeRequest(steps=1)
#: What stores do about conditions matters to the commit alone (`tests/jobs/test_rejected.py`).
pytestmark = pytest.mark.parametrize("s3_settings", [STRICT], indirect=True)
PROMPTS = drawn_prompts(24)


@pytest.fixture
def house(redis_url: str, store: Store, catalog: Catalog, engine: Engine) -> House:
    return House(redis_url, store, catalog, engine)


def made(
    house: House, policy: str, prompts: Sequence[str] = PROMPTS, name: str = "", **request: Any
) -> Job:
    """A finished job of one filter."""
    limits = {one: request.pop(one) for one in ("at_least", "at_most") if one in request}
    asked = FilterRequest.model_validate(
        {"name": name or "prompt_agreement", "policy": policy} | limits
    )
    fields = {"recipe": FAST, "shard_images": 12, "seed": 1, "filters": (asked,)} | request
    job = house.submit("\n".join(prompts), JobRequest(**fields))
    house.render(job)
    return job


def index_of(house: House, job: Job) -> DatasetIndex:
    return DatasetIndex.model_validate_json(house.store.get(house.layout(job).index))


def rows_of(house: House, job: Job, folder: Path) -> dict[int, dict[str, Any]]:
    fetch_dataset(house.store, house.layout(job), folder)
    return {row["image"]: row for row in table_rows(folder)}


def pictures_in(tars: Sequence[Path]) -> dict[str, bytes]:
    found = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                body = tar.extractfile(member)
                if body and member.name.endswith(".png"):
                    found[member.name] = body.read()
    return found


def right(pictures: Sequence[bytes], prompts: Sequence[str]) -> list[float]:
    """The share of right attributes, by the judge alone."""
    pixels = np.stack([np.asarray(Pillow.open(io.BytesIO(one))) for one in pictures])
    table = np.array([_every_prompt()[prompt] for prompt in prompts], dtype=np.int64)
    found = agreement(read(shipped_judge(), pixels)[0], Attributes.of(table))
    return [float(one) for one in np.mean([found[name] for name in VALUES], axis=0)]


def test_scores_are_columns_and_nothing_is_lost(house: House, tmp_path: Path) -> None:
    """`keep`: the pictures are those of a job without filters; each has its score and a mark."""
    job = made(house, "keep", at_least=1.0)
    rows = rows_of(house, job, tmp_path / "marked")
    plain = house.submit("\n".join(PROMPTS), JobRequest(recipe=FAST, shard_images=7, seed=1))
    house.render(plain)
    same = rows_of(house, plain, tmp_path / "plain")
    assert [rows[n]["sha256"] for n in range(24)] == [same[n]["sha256"] for n in range(24)]
    pictures = pictures_in(sorted((tmp_path / "marked" / "train").glob("*.tar")))
    shares = right([pictures[rows[n]["file_name"]] for n in range(24)], PROMPTS)
    assert [rows[n]["score_prompt_agreement"] for n in range(24)] == pytest.approx(shares)
    missed = [n for n in range(24) if shares[n] < 1]
    assert 0 < len(missed) < 24
    assert [n for n in range(24) if rows[n]["marks"] == "prompt_agreement"] == missed
    assert all(rows[n]["status"] == "ok" and rows[n]["turned_away"] == "" for n in range(24))
    index = index_of(house, job)
    assert (index.failed, index.rejects, index.marks) == (0, {}, {"prompt_agreement": len(missed)})
    timing = Timing.model_validate_json(house.store.get(house.layout(job).timing))
    assert timing.stages["filters"].count == 24
    assert timing.stages["filters"].sum_ms > 0
    assert house.queue.totals()["work:filter"] > 0
    assert "score_prompt_agreement" not in same[0]


def test_what_is_dropped_lies_in_the_quarantine_with_its_picture(
    house: House, tmp_path: Path
) -> None:
    job = made(house, "drop")
    rows = rows_of(house, job, tmp_path)
    failed = [n for n in range(24) if rows[n]["status"] == "failed"]
    assert 0 < len(failed) < 24
    assert {rows[n]["error"] for n in failed} == {"rejected:prompt_agreement"}
    kept = pictures_in(sorted((tmp_path / "train").glob("*.tar")))
    turned_away = pictures_in(sorted((tmp_path / "quarantine").glob("*.tar")))
    assert kept.keys() == {rows[n]["file_name"] for n in range(24) if n not in failed}
    assert turned_away.keys() == {f"{rows[n]['key']}.png" for n in failed}
    assert all(rows[n]["score_prompt_agreement"] < 1 for n in failed)
    assert min(right([*kept.values()], [PROMPTS[_index(name)] for name in kept])) == 1
    told = [row["image"] for row in quarantine_rows(house.store, house.layout(job))]
    assert told == failed
    index = index_of(house, job)
    assert (index.ok, index.failed) == (24 - len(failed), len(failed))
    assert index.rejects == {"prompt_agreement": len(failed)}
    assert {file.name for file in index.quarantine} == {
        "quarantine/00000.parquet",
        *(f"quarantine/{path.name}" for path in (tmp_path / "quarantine").glob("*.tar")),
    }
    # A retry goes on with the next seed of each, and what passes now counts.
    retry_failed(
        house.store,
        house.queue,
        prefix=PREFIX,
        tenant="default",
        job_id=job.id,
        idempotency_key="again",
        now_ms=1,
    )
    house.render(job.model_copy(update={"id": f"{job.id}-r1"}))
    fetch_dataset(house.store, house.layout(job), tmp_path / "again")
    later = {row["image"]: row for row in table_rows(tmp_path / "again") if row["seed_try"] == 1}
    assert later.keys() == {*failed}
    for n in failed:
        image = image_of(job, n, Row(prompt=PROMPTS[n]))
        assert later[n]["seed"] == with_try(job, image, 1).seed
    assert index_of(house, job).ok > 24 - len(failed)


def test_a_retry_tries_the_next_seeds_until_one_passes(house: House, tmp_path: Path) -> None:
    job = made(house, "retry", max_tries=3)
    rows = rows_of(house, job, tmp_path / "one")
    tries = Counter(row["seed_try"] for row in rows.values())
    assert {0, 1} <= tries.keys()
    for n, row in rows.items():
        image = image_of(job, n, Row(prompt=PROMPTS[n]))
        number = row["seed_try"]
        assert row["seed"] == (with_try(job, image, number) if number else image).seed
        turned_away = row["turned_away"].split(",") if row["turned_away"] else []
        assert turned_away == ["prompt_agreement"] * (number + (row["status"] == "failed"))
        assert row["status"] == "ok" or number == 2
    made_now = [n for n in range(24) if rows[n]["status"] == "ok"]
    assert len(made_now) > sum(not rows[n]["turned_away"] for n in range(24))
    kept = pictures_in(sorted((tmp_path / "one" / "train").glob("*.tar")))
    assert min(right([*kept.values()], [PROMPTS[_index(name)] for name in kept])) == 1
    total = sum(len(row["turned_away"].split(",")) for row in rows.values() if row["turned_away"])
    assert index_of(house, job).rejects == {"prompt_agreement": total}
    # Whichever renderers, shards and neighbours: the same seeds are chosen, the same bits come out.
    other = house.submit(
        "\n".join(PROMPTS),
        JobRequest(recipe=FAST, shard_images=7, seed=1, filters=_filters("retry"), max_tries=3),
    )
    house.render(other, renderers=2)
    again = rows_of(house, other, tmp_path / "other")
    told = ("seed", "seed_try", "sha256", "status", "turned_away", "score_prompt_agreement")
    assert [[again[n][name] for name in told] for n in range(24)] == [
        [rows[n][name] for name in told] for n in range(24)
    ]


def test_so_many_accepted_of_each_row(house: House, tmp_path: Path) -> None:
    prompts = PROMPTS[:12]
    job = made(house, "retry", prompts, accept=3, max_tries=2, shard_images=18)
    assert (job.images, job.repeats, job.accept) == (36, 3, 3)
    rows = rows_of(house, job, tmp_path)
    short = {row["row"] for row in rows.values() if row["status"] != "ok"}
    assert 0 < len(short) < 12
    assert index_of(house, job).rows_short == len(short)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert f"{len(short)} of 12 prompts have fewer than 3\naccepted pictures." in text
    enough = made(house, "retry", prompts[:2], accept=1, at_least=0.0)
    assert index_of(house, enough).rows_short == 0


def test_pictures_that_resemble_others_are_found(house: House, tmp_path: Path) -> None:
    """Two rows of one prompt and seed give one picture twice: the later one is the duplicate."""
    lines = [f'{{"prompt": "{PROMPTS[n % 10]}", "seed": {n % 10}}}' for n in range(20)]
    filters = (FilterRequest(name="near_duplicate", policy="drop"),)
    fields: dict[str, Any] = {"recipe": FAST, "shard_images": 20, "filters": filters}
    job = house.submit("\n".join(lines), JobRequest(**fields), source="jsonl")
    house.render(job)
    rows = rows_of(house, job, tmp_path / "dropped")
    assert {n for n, row in rows.items() if row["status"] == "failed"} >= {*range(10, 20)}
    for n in range(10, 20):
        assert rows[n]["error"] == "rejected:near_duplicate"
        assert rows[n]["duplicate_of"] == rows[n - 10]["key"]
        assert (rows[n]["score_near_duplicate"], rows[n]["phash"]) == (0, rows[n - 10]["phash"])
    # Renderers know their shard; of other shards it is found out when all have ended.
    fields |= {"shard_images": 5}
    wide = house.submit("\n".join(lines), JobRequest(**fields), source="jsonl")
    house.render(wide, renderers=2)
    found = rows_of(house, wide, tmp_path / "wide")
    assert _ok(found) == _ok(rows)
    index = index_of(house, wide)
    assert (index.ok, index.duplicates) == (len(_ok(rows)), 0)
    assert index.rejects == {"near_duplicate": index.failed}
    turned_away = pictures_in(sorted((tmp_path / "wide" / "quarantine").glob("*.tar")))
    failed = [row for row in found.values() if row["status"] == "failed"]
    assert turned_away.keys() == {f"{row['key']}.png" for row in failed}
    # With the policy to keep them they are listed.
    marked = (FilterRequest(name="near_duplicate"),)
    spread = house.submit(
        "\n".join(lines), JobRequest(**fields | {"filters": marked}), source="jsonl"
    )
    house.render(spread, renderers=2)
    rows = rows_of(house, spread, tmp_path / "spread")
    listed = pq.read_table(tmp_path / "spread" / "duplicates.parquet").to_pylist()
    assert index_of(house, spread).duplicates == len(listed)
    assert {one["image"] for one in listed} >= {*range(10, 20)}
    for one in listed:
        twin = next(row for row in rows.values() if row["key"] == one["duplicate_of"])
        apart = int(rows[one["image"]]["phash"], 16) ^ int(twin["phash"], 16)
        assert twin["image"] < one["image"]
        assert (rows[one["image"]]["key"], one["distance"]) == (one["key"], apart.bit_count())
    assert len(listed) >= 5
    keys = ", ".join(f"'{one['key']}'" for one in listed)
    drop_rows(
        house.store,
        house.queue,
        facts_of(spread, house.catalog),
        prefix=PREFIX,
        tenant="default",
        job_id=spread.id,
        where=f"key in ({keys})",
        idempotency_key="twins",
        now_ms=1,
    )
    after = index_of(house, spread)
    assert (after.duplicates, after.dropped) == (0, len(listed))
    assert (after.ok, after.failed) == (20 - len(listed), 0)
    assert _ok(found) == {*range(20)} - {one["image"] for one in listed}
    # Tried again they part, although their rows name the same seed.
    retried = (FilterRequest(name="near_duplicate", policy="retry"),)
    again = {"filters": retried, "shard_images": 20}
    job = house.submit("\n".join(lines), JobRequest(**fields | again), source="jsonl")
    house.render(job)
    rows = rows_of(house, job, tmp_path / "retried")
    assert all(row["status"] == "ok" for row in rows.values())
    assert {n for n, row in rows.items() if row["seed_try"]} >= {*range(10, 20)}
    assert len({row["sha256"] for row in rows.values()}) == 20


# ---- filters of the operator's own ----

#: The page's own example, and what may be wrong with others.
PAGE = {name: text for name, _, text in blocks_of("filters.md") if name}
PLUGIN = """
import time

class Raises:
    def __call__(self, pictures, prompts):
        raise RuntimeError("no light")

def hangs(pictures, prompts):
    time.sleep(3600)

def miscounts(pictures, prompts):
    return [0.5]
"""


def test_a_plugin_scores_and_one_that_breaks_fails_its_images(
    redis_url: str,
    store: Store,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "light.py").write_text(PLUGIN)
    (tmp_path / "brightness.py").write_text(PAGE["brightness.py"])
    monkeypatch.syspath_prepend(tmp_path)
    names = {"raises": "Raises", "hangs": "hangs", "few": "miscounts", "gone": "nothing"}
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        PAGE["filters.toml"]
        + "\n".join(
            f'[filters.{name}]\nkind = "plugin"\nplugin = "light:{attribute}"\nat_least = 0.4\n'
            for name, attribute in names.items()
        )
    )
    offered = load_catalog(catalog)
    settings = Settings(renew_ms=500, catalog=catalog, filter_timeout_s=0.5)
    house = House(redis_url, store, offered, engine, settings)
    job = made(house, "drop", PROMPTS[:8], "brightness")
    rows = rows_of(house, job, tmp_path / "bright")
    pictures = pictures_in(sorted((tmp_path / "bright" / "train").glob("*.tar")))
    for row in rows.values():
        pixels = np.asarray(Pillow.open(io.BytesIO(pictures[row["file_name"]])))
        assert row["score_brightness"] == pytest.approx(pixels.mean() / 255)
    for name, says in {
        "raises": "the filter 'raises' failed: no light",
        "hangs": "the filter 'hangs' failed: it gave no answer within 0.5 s",
        "few": "for 4 pictures",
        "gone": "cannot be imported",
    }.items():
        job = made(house, "keep", PROMPTS[:4], name)
        found = [*quarantine_rows(house.store, house.layout(job))]
        assert [row["error_kind"] for row in found] == ["filter"] * 4, name
        assert all(says in row["error"] for row in found), found[0]["error"]
        assert "Traceback" in found[0]["traceback"]
    # The renderers live: whoever asks for no such filter gets its pictures.
    plain = house.submit("one", JobRequest(recipe=FAST))
    house.render(plain)
    assert index_of(house, plain).ok == 1


def _ok(rows: dict[int, dict[str, Any]]) -> set[int]:
    return {image for image, row in rows.items() if row["status"] == "ok"}


def _index(name: str) -> int:
    """Of shards of twelve."""
    return int(name[:5]) * 12 + int(name[5:9])


def _filters(policy: str) -> tuple[FilterRequest, ...]:
    return (FilterRequest.model_validate({"name": "prompt_agreement", "policy": policy}),)
