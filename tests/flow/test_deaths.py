"""A renderer that vanishes loses nothing: its shard is rendered again, once."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.catalog import Catalog
from jobs.errors import NoCapacity
from jobs.fetch import fetch_dataset
from jobs.job import Image, Job, JobRequest
from jobs.recipe import Recipe
from jobs.recover import recover_jobs
from jobs.redis_client import control_client
from jobs.results import outcome_of
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.flow.one_machine import PREFIX, House, table_rows
from tests.servers import wait_until
from workers import deliver, device_faults
from workers.engine import Engine
from workers.render import Batch, BatchRenderer

PROMPTS = "\n".join(f"a big red circle {number}" for number in range(12))


@pytest.fixture
def house(redis_url: str, store: Store, catalog: Catalog, engine: Engine) -> House:
    settings = Settings(lease_ms=1_500, renew_ms=200)
    return House(redis_url, store, catalog, engine, settings)


def images_of(house: House, job: Job, folder: Path) -> list[int]:
    fetch_dataset(house.store, house.layout(job), folder)
    return sorted(row["image"] for row in table_rows(folder))


def test_a_claim_without_a_renderer_runs_out(house: House, tmp_path: Path) -> None:
    """Whoever claimed and died is waited for one lease, then its shard goes to another."""
    job = house.submit(PROMPTS, JobRequest(shard_images=4, seed=1))
    gone = house.queue.claim("gone", "nonce", job.recipe.engine_key, 1, 1_500)
    assert gone[0].unit == "0"
    house.render(job)
    assert images_of(house, job, tmp_path) == list(range(12))
    assert not house.queue.leases()


def test_a_drained_renderer_gives_its_next_shard_back(house: House, tmp_path: Path) -> None:
    prompts = "\n".join(f"a big red circle {number}" for number in range(160))
    job = house.submit(prompts, JobRequest(shard_images=16, seed=1))
    with house.rendering(job) as loops:
        wait_until(lambda: loops[0].images_done > 0, "the first shard", 60)
    assert not house.queue.leases()
    left = house.queue.job(job.id)
    assert left is not None
    assert 0 < left.done_images < 160
    house.render(job)
    assert images_of(house, job, tmp_path) == list(range(160))


@pytest.mark.parametrize(("seconds", "done"), [(4.0, 0), (600.0, 64)])
def test_on_notice_a_unit_is_ended_where_there_is_time_and_else_given_back(
    house: House, seconds: float, done: int
) -> None:
    prompts = "\n".join(f"a big red circle {number}" for number in range(64))
    job = house.submit(prompts, JobRequest(shard_images=64, seed=1))
    with house.rendering(job) as loops:
        wait_until(lambda: loops[0].busy_s > 0, "the first batch", 60)
        loops[0].draining.give(seconds)
    left = house.queue.job(job.id)
    assert left is not None
    assert (left.done_images, left.units_in_flight) == (done, 0)
    if not done:
        # Offered at once, and nobody died.
        assert house.queue.claim("w", "n", job.recipe.engine_key, 1, 1_000)[0].attempt == 1


@pytest.mark.parametrize("renew_ms", [200, 200_000])
def test_cancel_stops_at_the_next_batch(house: House, renew_ms: int) -> None:
    """However seldom leases are renewed."""
    house.settings = Settings(lease_ms=max(1_500, 3 * renew_ms), renew_ms=renew_ms)
    job = house.submit(PROMPTS, JobRequest(shard_images=2, seed=1))
    with house.rendering(job) as loops:
        wait_until(lambda: loops[0].images_done > 0, "the first shard", 60)
        house.queue.state(job.id, "cancel")
        wait_until(lambda: not house.queue.leases(), "every lease to end", 30)
    house.finish()
    ended = house.queue.job(job.id)
    assert ended is not None
    assert (ended.state, ended.outcome) == ("closed", "cancelled")
    assert house.store.head(house.layout(job).success) is None
    # The store remembers it when the queue no longer does.
    assert outcome_of(house.store, house.layout(job)).state == "cancelled"


def test_pause_and_resume(house: House, tmp_path: Path) -> None:
    job = house.submit(PROMPTS, JobRequest(shard_images=2, seed=1))
    house.queue.state(job.id, "pause")
    with house.rendering(job):
        assert house.queue.claim("w", "n", job.recipe.engine_key, 1, 1_000) == []
        house.queue.state(job.id, "run")
        wait_until(lambda: job.id in house.queue.finishing(), "the last shard", 120)
    house.finish()
    assert images_of(house, job, tmp_path) == list(range(12))


def test_a_poison_image_costs_itself(house: House, tmp_path: Path) -> None:
    """An image that kills whoever renders it ends as a failed row; the others are rendered."""
    job = house.submit(PROMPTS, JobRequest(shard_images=1, seed=1))
    ahead = 0

    def clock() -> int:
        return int(time.time() * 1e3) + ahead

    deadly = ShardQueue(control_client(house.redis_url), clock=clock)
    while not deadly.pieces(job.id).dead:
        for lease in deadly.claim("w", f"n{ahead}", job.recipe.engine_key, 64, 1_000):
            kind = "crash" if lease.unit == "5" else "release"
            deadly.fail(job.id, lease.unit, lease.token, kind, "killed by signal 11")  # type: ignore[arg-type]
        ahead += 100_000
        assert ahead < 5_000_000
    house.render(job)
    fetch_dataset(house.store, house.layout(job), tmp_path)
    rows = {row["image"]: row for row in table_rows(tmp_path)}
    assert sorted(rows) == list(range(12))
    assert [image for image, row in rows.items() if row["status"] == "failed"] == [5]
    assert "killed by signal 11" in rows[5]["error"]
    assert (rows[5]["error_kind"], rows[5]["attempt"]) == ("died", 3)
    ended = house.queue.job(job.id)
    assert ended is not None
    assert (ended.outcome, ended.done_images, ended.dead_images) == ("done", 11, 1)


def test_a_commit_that_breaks_is_tried_again(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad disk in the middle of a commit: the lease is given up, not held for ever."""
    whole, broken = deliver.commit_unit, []

    def commit(*arguments: Any, **rest: Any) -> Any:
        if not broken:
            broken.append(arguments)
            raise OSError(5, "Input/output error")
        return whole(*arguments, **rest)

    monkeypatch.setattr(deliver, "commit_unit", commit)
    job = house.submit(PROMPTS, JobRequest(shard_images=4, seed=1))
    house.render(job)
    assert broken
    assert images_of(house, job, tmp_path) == list(range(12))


def test_a_node_without_room_stops_and_costs_nothing(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out in the middle of a commit: the renderer leaves, nothing is counted."""

    def full(*arguments: Any, **rest: Any) -> Any:
        raise OSError(28, "No space left on device")

    job = house.submit(PROMPTS, JobRequest(shard_images=4, seed=1))
    loop = house.loop("full", job.recipe.engine_key)
    with monkeypatch.context() as patch:
        patch.setattr(deliver, "commit_unit", full)
        loop.keeper.start()
        with pytest.raises(NoCapacity, match="No space left"):
            loop.run()
        loop.keeper.stop()
    assert not house.queue.leases()
    house.render(job)
    assert images_of(house, job, tmp_path) == list(range(12))
    assert {row["attempt"] for row in table_rows(tmp_path)} == {1}


def test_a_node_without_room_claims_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen beforehand: it says so, and goes on once there is room."""
    job = house.submit(PROMPTS, JobRequest(shard_images=4, seed=1))
    with monkeypatch.context() as patch:
        patch.setattr(device_faults, "ROOM_BYTES", 1 << 62)
        with house.rendering(job) as loops:
            wait_until(lambda: loops[0].state == "broken", "the renderer to say so", 30)
            assert "for temporary files" in loops[0].trouble
            record = house.queue.job(job.id)
            assert record is not None
            assert record.cursor == 0
            patch.undo()
            wait_until(lambda: job.id in house.queue.finishing(), "the last shard", 120)
            assert not loops[0].trouble
    house.finish()


def test_redis_forgets_everything(house: House, tmp_path: Path) -> None:
    """The queue is rebuilt from the store: committed shards stay, the others are rendered."""
    job = house.submit(PROMPTS, JobRequest(shard_images=2, seed=1))
    with house.rendering(job) as loops:
        wait_until(lambda: loops[0].images_done > 0, "the first shard", 60)
    before = house.queue.job(job.id)
    assert before is not None
    control_client(house.redis_url).flushall()
    assert house.queue.job(job.id) is None
    assert list(recover_jobs(house.store, house.queue, PREFIX)) == [job.id]
    after = house.queue.job(job.id)
    assert after is not None
    assert after.done_images == before.done_images > 0
    assert list(recover_jobs(house.store, house.queue, PREFIX)) == []
    house.render(job)
    assert images_of(house, job, tmp_path) == list(range(12))
    control_client(house.redis_url).flushall()
    assert list(recover_jobs(house.store, house.queue, PREFIX)) == []


def test_what_cannot_be_rendered_says_why(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that fails is rendered one by one: the row that fails alone keeps its traceback."""
    whole = BatchRenderer.render

    def render(self: BatchRenderer, recipe: Recipe, images: Sequence[Image]) -> Batch:
        if any(image.index == 5 for image in images):
            raise RuntimeError("no kernel for image 5")
        return whole(self, recipe, images)

    monkeypatch.setattr(BatchRenderer, "render", render)
    job = house.submit(PROMPTS, JobRequest(shard_images=4, seed=1))
    house.render(job)
    fetch_dataset(house.store, house.layout(job), tmp_path)
    rows = {row["image"]: row for row in table_rows(tmp_path)}
    assert [image for image, row in rows.items() if row["status"] == "failed"] == [5]
    assert rows[5]["error"] == "rendering failed: no kernel for image 5"
    assert rows[5]["error_kind"] == "device"
    assert "in render\n" in rows[5]["traceback"]
    assert rows[4]["error_kind"] == rows[4]["traceback"] == ""
