"""Images without a picture: a row for each in the quarantine, whatever the end of the job."""

import json
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import failed, quarantine
from jobs.brought import RECORD
from jobs.catalog import load_catalog
from jobs.commit import commit_unit
from jobs.errors import InvalidInput, NotFound
from jobs.failed import failed_page
from jobs.fetch import fetch_dataset, read_index
from jobs.finish import Finished, facts_of, finish_job
from jobs.given_up import commit_given_up
from jobs.job import Job, Rows
from jobs.layout import JobLayout
from jobs.rounds import Accepted
from jobs.rows import Row
from jobs.spool import spool_rows
from jobs.store import Store
from tests.made_shards import (
    MAKER,
    TIMES,
    made_job,
    made_layout,
    made_picture,
    unit_of,
)

JOB: Job = made_job(10, columns={"topic": "string"})
LAYOUT: JobLayout = made_layout(JOB)


class AlwaysWins:
    """An arbiter for tests in which nobody contends."""

    def win(self, job_id: str, unit: str, token: str, /) -> str:
        return token


def put_unit(store: Store, name: str, failed: tuple[int, ...] = (), job: Job = JOB) -> None:
    unit = unit_of(job, name)
    pictures = []
    for index in range(unit.first, unit.stop):
        row = Row(prompt=f"prompt «{index}»", negative_prompt="fog", extra={"topic": "sea"})
        made = made_picture(job, index, failed=index in failed, row=row)
        news = {"traceback": "Traceback: here", "error_kind": "nan", "attempt": 2}
        record = made.record.model_copy(update=news if index in failed else {})
        pictures.append(made.model_copy(update={"record": record}))
    commit_unit(store, AlwaysWins(), job, made_layout(job), unit, "7", 1, pictures, MAKER, TIMES)


def finish(store: Store, job: Job = JOB, ended: str = "") -> Finished:
    return finish_job(store, made_layout(job), job, facts_of(job, load_catalog()), ended=ended)


def rows_in(store: Store, layout: JobLayout = LAYOUT) -> list[dict[str, Any]]:
    keys = [found.key for found in store.list(layout.quarantine_folder)]
    return [row for key in keys for row in pq.read_table(BytesIO(store.get(key))).to_pylist()]


def test_each_failed_image_has_a_row_that_says_why(store: Store) -> None:
    put_unit(store, "0", failed=(1, 3))
    put_unit(store, "1:4-6")
    put_unit(store, "1:6-8", failed=(6,))
    put_unit(store, "2")

    result = finish(store)

    rows = rows_in(store)
    assert (result.ok, result.failed, result.errors) == (7, 3, {"not a number": 3})
    assert [row["image"] for row in rows] == [1, 3, 6]
    assert [row["unit"] for row in rows] == ["0", "0", "1:6-8"]
    created = rows[0].pop("created")
    assert created.year == 2023
    assert rows[0] == {
        "key": "000000001",
        "image": 1,
        "row": 1,
        "repeat": 0,
        "prompt": "prompt «1»",
        "negative_prompt": "fog",
        "seed": made_picture(JOB, 1).record.seed,
        "error": "not a number",
        "error_kind": "nan",
        "traceback": "Traceback: here",
        "attempts": 2,
        "worker": MAKER.worker,
        "shard": "00000",
        "unit": "0",
        **{"width": 64, "height": 64, "steps": 4, "guidance": 1.0, "sampler": "lcm"},
        "topic": "sea",
    }
    assert "`quarantine/` has a row for each" in store.get(LAYOUT.card).decode()


def test_no_failure_no_file(store: Store) -> None:
    for name in ("0", "1", "2"):
        put_unit(store, name)
    store.put(LAYOUT.quarantine(0), b"of an earlier finishing")

    assert finish(store).complete

    assert rows_in(store) == []
    assert json.loads(store.get(LAYOUT.index))["quarantine"] == []
    assert "quarantine" not in store.get(LAYOUT.card).decode()


def test_many_failures_are_several_files_and_the_same_each_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "FILE_ROWS", 2)
    put_unit(store, "0", failed=(0, 1, 2))
    put_unit(store, "1", failed=(4, 5))
    put_unit(store, "2", failed=(9,))

    finish(store)
    first = {found.key: store.get(found.key) for found in store.list(LAYOUT.root)}
    finish(store)

    assert {found.key: store.get(found.key) for found in store.list(LAYOUT.root)} == first
    assert [row["image"] for row in rows_in(store)] == [0, 1, 2, 4, 5, 9]
    index = read_index(store, LAYOUT)
    assert [file.name for file in index.quarantine] == [
        f"quarantine/0000{n}.parquet" for n in range(3)
    ]


def test_images_on_which_processes_died_are_in_it(store: Store) -> None:
    rows = spool_rows(store, [Row(prompt=f"p{n}") for n in range(10)], "x/")
    job = JOB.model_copy(update={"rows": Rows(**rows.model_dump() | {"columns": {}})})
    put_unit(store, "0", job=job)
    put_unit(store, "1:4-7", job=job)
    put_unit(store, "2", job=job)

    commit_given_up(store, Accepted(job), made_layout(job), {"7-8": "killed by signal 11"}, 3)
    finish(store, job)

    [row] = rows_in(store)
    assert (row["image"], row["prompt"], row["unit"]) == (7, "p7", "1:7-8")
    assert (row["error_kind"], row["attempts"]) == ("died", 3)
    assert "killed by signal 11" in row["error"]


def test_a_job_that_ended_early_is_an_incomplete_dataset(store: Store, tmp_path: Any) -> None:
    store.put(LAYOUT.job, JOB.model_dump_json().encode())
    put_unit(store, "1", failed=(5,))

    result = finish(store, ended="cancelled by its user")

    assert (result.complete, result.ok, result.failed) == (False, 3, 1)
    assert result.missing == ((0, 4), (8, 10))
    assert store.head(LAYOUT.success) is None
    assert [row["image"] for row in rows_in(store)] == [5]
    card = store.get(LAYOUT.card).decode()
    assert "**Not complete.** 6 of 10 images were not rendered: cancelled by its user" in card
    fetched = fetch_dataset(store, LAYOUT, tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert fetched.files == len(names - {RECORD})
    assert {"train/00001.tar", "quarantine/00000.parquet", "index.json"} <= names
    assert "_SUCCESS" not in names


def test_of_nothing_no_dataset_is_made(store: Store) -> None:
    result = finish(store, ended="cancelled by its user")

    assert (result.complete, result.ok) == (False, 0)
    assert list(store.list(LAYOUT.root)) == []
    with pytest.raises(NotFound, match="not finished"):
        read_index(store, LAYOUT)


def test_rows_are_read_back_by_file(store: Store) -> None:
    put_unit(store, "0", failed=(2,))

    finish(store, ended="stopped")

    assert [row["image"] for row in quarantine.read_quarantine(store, LAYOUT, 0)] == [2]
    with pytest.raises(NotFound):
        quarantine.read_quarantine(store, LAYOUT, 1)


def pages(store: Store, limit: int) -> tuple[list[int], bool, int]:
    """Images over all pages, whether the job has ended, and how many pages there were."""
    images, cursor, count = [], None, 0
    while count == 0 or cursor is not None:
        page = failed_page(store, LAYOUT, JOB, limit=limit, cursor=cursor)
        images += [one.image for one in page.failed]
        cursor, count = page.cursor, count + 1
    return images, page.ended, count


@pytest.mark.parametrize("limit", [1, 2, 500])
def test_failures_are_listed_while_the_job_runs_and_after(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(failed, "SCAN", 2)
    monkeypatch.setattr(quarantine, "FILE_ROWS", 2)
    monkeypatch.setattr(failed, "FILE_ROWS", 2)
    assert pages(store, limit) == ([], False, 1)
    put_unit(store, "0", failed=(0, 1, 3))
    put_unit(store, "1:4-6")
    put_unit(store, "1:6-8")
    put_unit(store, "2", failed=(8,))

    assert pages(store, limit)[:2] == ([0, 1, 3, 8], False)

    finish(store)
    assert pages(store, limit)[:2] == ([0, 1, 3, 8], True)


def test_a_listed_failure_has_its_row(store: Store) -> None:
    put_unit(store, "0", failed=(2,))

    [one] = failed_page(store, LAYOUT, JOB).failed

    assert (one.prompt, one.attempts, one.columns) == ("prompt «2»", 2, {"topic": "sea"})


def test_a_cursor_from_before_the_end_is_refused(store: Store) -> None:
    put_unit(store, "0", failed=(0, 1, 3))
    cursor = failed_page(store, LAYOUT, JOB, limit=1).cursor
    finish(store, ended="stopped")
    store.put(LAYOUT.outcome, b"{}")

    with pytest.raises(InvalidInput, match="the job has ended"):
        failed_page(store, LAYOUT, JOB, cursor=cursor)
