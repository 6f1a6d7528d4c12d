"""Fetching into a folder that was fetched before: what the dataset has no more goes."""

from pathlib import Path

import pytest

from jobs.brought import RECORD, Brought
from jobs.drop import drop_rows
from jobs.fetch import fetch_dataset
from jobs.finish import Facts
from jobs.redis_client import control_client
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.undo_drop import undo_drop
from tests.rendered_jobs import PREFIX, TENANT, Workshop


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "older"])
def test_shards_that_were_written_anew_replace_those_that_were_fetched(
    redis_url: str, store: Store, tmp_path: Path, recorded: bool
) -> None:
    shop = Workshop(ShardQueue(control_client(redis_url)), store)
    job = shop.submit([Row(prompt=f"prompt {n}") for n in range(6)], shard_images=2)
    shop.render(job)
    shop.finish()
    out = tmp_path / "out"
    fetch_dataset(store, shop.layout(job), out)
    before = files(out)
    mine = out / "train" / "notes.tar"
    mine.write_bytes(b"mine")
    if not recorded:
        (out / RECORD).unlink()
    asked = {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": 1_700_000_100_000}
    where = "prompt = 'prompt 2'"
    drop_rows(shop.store, shop.queue, Facts(), where=where, idempotency_key="k", **asked)
    fetch_dataset(store, shop.layout(job), out)
    # As in an empty folder, and what nobody fetched stays.
    fetch_dataset(store, shop.layout(job), tmp_path / "fresh")
    assert files(out) == files(tmp_path / "fresh") | {"train/notes.tar"}
    assert files(out) - {"train/notes.tar"} != before
    undo_drop(shop.store, shop.queue, Facts(), **asked)
    fetch_dataset(store, shop.layout(job), out)
    assert files(out) == before | {"train/notes.tar"}


def test_a_fetch_that_is_cut_says_no_success_and_the_next_one_tidies(tmp_path: Path) -> None:
    Brought(tmp_path, ["train/a.tar", "_SUCCESS"]).tidy()
    (tmp_path / "train").mkdir()
    for name in ("train/a.tar", "train/b.tar", "_SUCCESS"):
        (tmp_path / name).write_bytes(b"")
    Brought(tmp_path, ["train/b.tar", "_SUCCESS"])
    assert files(tmp_path) == {"train/a.tar", "train/b.tar", RECORD}
    assert Brought(tmp_path, ["train/b.tar", "_SUCCESS"]).tidy() == 1
    assert files(tmp_path) == {"train/b.tar", RECORD}


def test_nothing_outside_of_the_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"")
    out = tmp_path / "out"
    out.mkdir()
    (out / RECORD).write_text("../precious\n", "utf-8")
    assert Brought(out, ["train/b.tar"]).tidy() == 0
    assert (tmp_path / "precious").exists()
