"""Units on their way through a renderer: they share batches, and each has its own fate."""

import errno
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from redis import ResponseError

from jobs.catalog import Catalog
from jobs.errors import NoCapacity
from jobs.fetch import fetch_dataset
from jobs.job import Image, Job, JobRequest
from jobs.recipe import Recipe, RecipeRequest
from jobs.settings import Settings
from jobs.store import Store
from tests.flow.one_machine import House, table_rows
from tests.servers import wait_until
from workers.deliver import Delivery
from workers.device_faults import DeviceLost
from workers.engine import Engine
from workers.leases import Held
from workers.pipeline import Pipeline
from workers.prefetch import Prefetch
from workers.render import Batch, BatchRenderer
from workers.shard_loop import ShardLoop
from workers.work import Work, WorkSource

FAST = RecipeRequest(steps=1)
Seen = list[list[str]]


@pytest.fixture
def house(redis_url: str, store: Store, catalog: Catalog, engine: Engine) -> House:
    settings = Settings(lease_ms=30_000, renew_ms=200)
    return House(redis_url, store, catalog, engine, settings)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The prompts of every batch that goes to the device."""
    return watch(monkeypatch, lambda prompts: None)


def watch(monkeypatch: pytest.MonkeyPatch, before: Callable[[list[str]], None]) -> Seen:
    seen: Seen = []
    whole = BatchRenderer.render

    def render(this: Any, recipe: Recipe, images: Sequence[Image], *rest: Any) -> Batch:
        prompts = [image.row.prompt for image in images]
        seen.append(prompts)
        before(prompts)
        return whole(this, recipe, images, *rest)

    monkeypatch.setattr(BatchRenderer, "render", render)
    return seen


def submit(house: House, name: str, images: int, size: int) -> Job:
    prompts = "\n".join(f"{name} {number}" for number in range(images))
    return house.submit(prompts, JobRequest(recipe=FAST, shard_images=size, seed=1))


def pictures(house: House, job: Job, folder: Path) -> dict[int, str]:
    """Image -> sha256 of its file, as the dataset's rows tell it."""
    fetch_dataset(house.store, house.layout(job), folder)
    rows = table_rows(folder)
    assert [row["status"] for row in rows] == ["ok"] * job.images
    return {row["image"]: row["sha256"] for row in rows}


def finished(house: House, *jobs: Job) -> Callable[[], bool]:
    return lambda: {job.id for job in jobs} <= set(house.queue.finishing())


def test_small_jobs_fill_one_batch(house: House, batches: Seen, tmp_path: Path) -> None:
    """Sixteen images of three jobs are one batch, and bit-equal to those of a batch each."""
    jobs = [submit(house, "a", 5, 2), submit(house, "b", 5, 1), submit(house, "c", 6, 6)]
    with house.rendering(jobs[0]):
        wait_until(finished(house, *jobs), "three jobs", 300)
    house.finish()
    assert len(batches) == 1
    assert sorted(batches[0]) == sorted(
        f"{name} {n}" for name, count in (("a", 5), ("b", 5), ("c", 6)) for n in range(count)
    )
    together = [pictures(house, job, tmp_path / job.id) for job in jobs]
    for number, (name, count) in enumerate((("a", 5), ("b", 5), ("c", 6))):
        alone = submit(house, name, count, count)
        house.render(alone)
        assert pictures(house, alone, tmp_path / alone.id) == together[number]


def test_the_tail_of_a_shard_is_filled_by_the_next(
    house: House, batches: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is, the next shard comes before the wait for it ends.
    monkeypatch.setattr("workers.shard_loop.FILL_S", 300.0)
    job = submit(house, "a", 40, 10)
    house.render(job)
    assert [len(one) for one in batches] == [16, 16, 8]


def test_units_are_tallied_for_the_metrics(house: House) -> None:
    job = submit(house, "a", 20, 10)
    house.render(job)
    totals = house.queue.totals()
    assert (totals["image:ok"], totals["unit:ok"]) == (20, 2)
    for name in ("work:denoise", "work:decode", "work:upload", "stall:work"):
        assert totals[name] > 0, name


def test_no_more_is_claimed_than_two_batches_need(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others find work too: while a batch is on the device, two more are held and a unit's rest."""
    job, held, loops = submit(house, "a", 120, 5), [], []

    def count(_: list[str]) -> None:
        units = [one.lease for one in loops[0].keeper.held()] if loops else []
        held.append(sum(one.images for one in units))

    watch(monkeypatch, count)
    with house.rendering(job) as running:
        loops.extend(running)
        wait_until(finished(house, job), "the job", 300)
    # What waits for its upload is held too; the first batches have nothing there yet.
    assert max(held[:2]) <= 16 + 32 + 5


def test_a_unit_that_fell_is_rendered_with_nothing_else_at_stake(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever dies on it again must not take innocent units along."""
    job = submit(house, "a", 12, 2)
    (lease,) = house.queue.claim("gone", "n", job.recipe.engine_key, 1, 1_000)
    assert lease.unit == "0"
    house.queue.fail(job.id, "0", lease.token, "crash", "made up")
    at_stake: list[tuple[list[str], int]] = []
    watch(
        monkeypatch, lambda prompts: at_stake.append((sorted(prompts), len(house.queue.leases())))
    )
    house.render(job)
    assert (["a 0", "a 1"], 1) in at_stake
    assert all("a 0" not in prompts for prompts, _ in at_stake if len(prompts) > 2)
    assert len(pictures(house, job, tmp_path)) == 12


def test_a_paused_job_leaves_the_batches_of_others(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two jobs in one batch; one is paused: from the next batch on only the other goes on."""
    paused, other = submit(house, "p", 48, 24), submit(house, "o", 24, 24)
    reached, go_on = threading.Event(), threading.Event()

    def hold(prompts: list[str]) -> None:
        if any(prompt.startswith("o") for prompt in prompts):
            reached.set()
            go_on.wait(60)

    seen = watch(monkeypatch, hold)
    with house.rendering(paused) as loops:
        assert reached.wait(120)
        house.queue.state(paused.id, "pause")
        wait_until(lambda: _told(loops[0], paused, "pause"), "the pause", 60)
        so_far = len(seen)
        go_on.set()
        wait_until(finished(house, other), "the other job", 120)
    assert all(prompt.startswith("o") for prompts in seen[so_far:] for prompt in prompts)
    assert [lease.job_id for lease in house.queue.leases()] == []
    house.queue.state(paused.id, "run")
    house.render(paused)
    assert len(pictures(house, paused, tmp_path)) == 48


def _told(loop: ShardLoop, job: Job, verdict: str) -> bool:
    ours = [held for held in loop.keeper.held() if held.lease.job_id == job.id]
    return all(held.verdict == verdict for held in ours)


def test_a_lost_device_gives_every_unit_back(house: House, tmp_path: Path) -> None:
    """The loop ends with the error; what was not delivered is offered again, nothing counted."""
    job = submit(house, "a", 40, 20)
    loop = house.loop("renderer-0", job.recipe.engine_key)
    calls: list[int] = []

    def fails(*_: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("CUDA error: an illegal memory access was encountered (made up)")

    hook = house.engine.unet.register_forward_hook(fails)
    try:
        with pytest.raises(DeviceLost, match="illegal memory access"):
            loop.run()
    finally:
        hook.remove()
        loop.keeper.stop()
    assert not house.queue.leases()
    record = house.queue.job(job.id)
    assert record is not None
    # The first batch was of a unit that needed the second one too.
    assert record.wasted_ms > 0
    again = house.queue.claim("w", "n", job.recipe.engine_key, 64, 1_000)
    assert [lease.attempt for lease in again] == [1] * len(again)
    for lease in again:
        house.queue.fail(job.id, lease.unit, lease.token, "release")
    house.render(job)
    assert len(pictures(house, job, tmp_path)) == 40


@pytest.mark.parametrize("where", [(Delivery, "adopt"), (WorkSource, "fetch")])
def test_a_full_disk_while_reading_stops_the_renderer_and_costs_no_unit(
    house: House, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
) -> None:
    job = submit(house, "a", 12, 4)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device (made up)")

    monkeypatch.setattr(*where, full)
    loop = house.loop("renderer-0", job.recipe.engine_key)
    with pytest.raises(NoCapacity, match="No space left"):
        loop.run()
    assert not house.queue.leases()
    again = house.queue.claim("w", "n", job.recipe.engine_key, 64, 1_000)
    assert [lease.attempt for lease in again] == [1, 1, 1]


def test_a_unit_that_cannot_be_read_is_counted_alone(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A manifest of another release, say: the unit is tried again, its neighbours go on."""
    job, adopt, tried = submit(house, "a", 12, 4), Delivery.adopt, []

    def picky(this: Delivery, work: Work) -> bool:
        tried.append((work.held.lease.unit, work.held.lease.attempt))
        if tried[-1] == ("1", 1):
            raise ValueError("no such field (made up)")
        return adopt(this, work)

    monkeypatch.setattr(Delivery, "adopt", picky)
    house.render(job)
    assert sorted(tried) == [("0", 1), ("1", 1), ("1", 2), ("2", 1)]
    assert len(pictures(house, job, tmp_path)) == 12


def test_a_unit_is_given_back_where_redis_refuses_its_job(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept, it would be renewed and never rendered."""
    job, fetch, given_back = submit(house, "a", 4, 4), WorkSource.fetch, []

    def refused_once(this: WorkSource, held: Held) -> Work:
        if not given_back:
            given_back.append(held)
            raise ResponseError("made up")
        return fetch(this, held)

    monkeypatch.setattr(WorkSource, "fetch", refused_once)
    with house.rendering(job) as loops:
        wait_until(lambda: bool(given_back), "the first claim", 60)
        wait_until(lambda: given_back[0] not in loops[0].keeper.held(), "giving it back", 60)
        wait_until(finished(house, job), "the job", 300)


def test_what_was_rendered_is_delivered_whatever_reading_ahead_ends_with(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, close, loop = [], Pipeline.close, house.loop("renderer-0", "an engine")

    def noted(this: Pipeline) -> None:
        close(this)
        closed.append(this)

    def fails(_: Prefetch) -> None:
        raise RuntimeError("made up")

    monkeypatch.setattr(Pipeline, "close", noted)
    monkeypatch.setattr(Prefetch, "close", fails)
    loop.draining.set()
    with pytest.raises(RuntimeError, match="made up"):
        loop.run()
    assert len(closed) == 1


def test_out_of_memory_is_written_into_the_rows(house: House, tmp_path: Path) -> None:
    job = submit(house, "a", 20, 20)

    def full(_: Any, arguments: Any, output: Any) -> None:
        if len(output[0]) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")

    hook = house.engine.unet.register_forward_hook(full)
    try:
        house.render(job)
    finally:
        hook.remove()
    assert len(pictures(house, job, tmp_path)) == 20
    assert {row["batch_images"] for row in table_rows(tmp_path)} == {8}
