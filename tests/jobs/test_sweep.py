"""Sweeping the store: what deaths left behind goes, and nothing that anybody may still want."""

import time

import pytest
import redis

from jobs.control import steer
from jobs.layout import JobLayout
from jobs.objects import ObjectInfo
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.sweep import OLD_MS, sweep
from tests.rendered_jobs import PREFIX, TENANT, Workshop

ROWS = [Row(prompt=f"prompt {n}") for n in range(6)]


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def later() -> int:
    return now_ms() + OLD_MS + 60_000


def names(store: Store, folder: str) -> set[str]:
    return {found.key.removeprefix(folder) for found in store.list(folder)}


def begin_upload(store: Store, key: str) -> None:
    store._client.create_multipart_upload(Bucket=store.bucket, Key=key)


def test_remains_of_an_ended_job_go_when_they_are_old(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=2)
    shop.render(job)
    shop.finish()
    layout = shop.layout(job)
    kept = names(shop.store, f"{PREFIX}/")
    shop.store.put(f"{layout.scratch}staged/00000.7.tar", b"of a renderer believed dead")
    shop.store.put(f"{layout.scratch}rounds/0001-failed/000000.jsonl", b"of a retry that ended")
    shop.store.put(f"{PREFIX}/_scratch/probe-1", b"1")

    assert sweep(shop.store, PREFIX, now_ms()).objects == 0
    assert sweep(shop.store, PREFIX, later()).objects == 3

    assert names(shop.store, f"{PREFIX}/") == kept
    assert sweep(shop.store, PREFIX, later()).objects == 0


def test_what_is_at_work_is_not_touched_however_old(shop: Workshop) -> None:
    running = shop.submit(ROWS, shard_images=2)
    shop.store.put(f"{shop.layout(running).scratch}staged/00000.7.tar", b"being committed")
    retried = shop.submit(ROWS, shard_images=3)
    shop.broken = {1}
    shop.render(running, units=1)
    steer(shop.queue, shop.store, shop.layout(running), running.id, "pause")
    shop.render(retried)
    shop.finish()
    retry_failed(
        shop.store,
        shop.queue,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=retried.id,
        idempotency_key="key",
        now_ms=0,
    )
    shop.store.put(f"{shop.layout(retried).scratch}staged/00002.9.tar", b"of the retry")
    before = names(shop.store, f"{PREFIX}/")

    assert sweep(shop.store, PREFIX, later()).objects == 0

    assert names(shop.store, f"{PREFIX}/") == before


def test_rows_of_a_submission_that_was_never_accepted_go(shop: Workshop) -> None:
    layout = JobLayout(prefix=PREFIX, tenant=TENANT, job_id="a" * 26)
    shop.store.put(f"{layout.scratch}rows-12/000000.jsonl", b"{}")

    assert sweep(shop.store, PREFIX, now_ms()).objects == 0
    assert sweep(shop.store, PREFIX, later()).objects == 1

    assert list(shop.store.list(layout.scratch)) == []


def test_uploads_in_parts_that_were_cut_are_ended(shop: Workshop) -> None:
    other = f"elsewhere/{TENANT}/00000.tar"
    begin_upload(shop.store, f"{PREFIX}/{TENANT}/{'a' * 26}/train/00000.tar")
    begin_upload(shop.store, other)

    assert sweep(shop.store, PREFIX, later()).uploads == 1

    assert shop.store.unfinished_uploads(f"{PREFIX}/") == ()
    assert len(shop.store.unfinished_uploads("elsewhere/")) == 1
    assert shop.store.abort_uploads("elsewhere/") == 1


def test_a_job_that_ends_leaves_no_upload_and_no_staged_file(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=2)
    layout = shop.layout(job)
    begin_upload(shop.store, f"{layout.shards}00000.tar")
    begin_upload(shop.store, f"{layout.scratch}staged/00001.7.tar")
    shop.store.put(f"{layout.scratch}staged/00001.7.failed.jsonl", b"")
    shop.render(job)

    shop.finish()

    assert shop.store.unfinished_uploads(f"{PREFIX}/") == ()
    left: list[ObjectInfo] = list(shop.store.list(layout.scratch))
    assert [one.key for one in left] == [f"{job.rows.prefix}000000.jsonl"]
