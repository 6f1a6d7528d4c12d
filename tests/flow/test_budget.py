"""A limit is reached while renderers are at work; where it is raised, the job goes on."""

from pathlib import Path

import pytest

from jobs.catalog import Catalog
from jobs.fetch import fetch_dataset, read_index
from jobs.job import Job, JobRequest
from jobs.raising import change_budget
from jobs.recipe import RecipeRequest
from jobs.store import Store
from scheduler.limits import within_limits
from tests.flow.one_machine import House
from tests.flow.test_submit_to_dataset import pictures
from tests.servers import wait_until
from workers.engine import Engine

PROMPTS = "\n".join(f"a red circle number {n}" for n in range(5))


@pytest.fixture
def house(redis_url: str, store: Store, catalog: Catalog, engine: Engine) -> House:
    return House(redis_url, store, catalog, engine)


def fetched(house: House, job: Job, out: Path) -> dict[int, bytes]:
    fetch_dataset(house.store, house.layout(job), out)
    return pictures(out)


@pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)
def test_stopped_while_it_renders_and_let_go_on(house: House, tmp_path: Path) -> None:
    asked = JobRequest(recipe=RecipeRequest(steps=1), seed=3, repeats=16, shard_images=16)
    job = house.submit(PROMPTS, asked.model_copy(update={"max_device_seconds": 0.001}))
    with house.rendering(job):
        # Whatever is delivered first is beyond this limit; the scheduler sees it in its round.
        wait_until(lambda: not within_limits(house.queue, house.queue.open_jobs(), 0), "it", 300)
        wait_until(lambda: job.id in house.queue.finishing(), "no lease", 300)
    house.finish()
    record, index = house.queue.job(job.id), read_index(house.store, house.layout(job))
    assert record is not None
    assert (record.outcome, record.limit) == ("stopped", "max_device_seconds")
    assert not index.complete
    # A renderer holds two batches at most: that much may be beyond the limit.
    assert 16 <= index.ok <= 16 + 32
    first = fetched(house, job, tmp_path / "first")
    assert len(first) == index.ok

    change_budget(
        house.store, house.queue, house.layout(job), job, job.id, {"max_device_seconds": None}
    )
    house.render(job)
    whole = fetched(house, job, tmp_path / "whole")
    assert sorted(whole) == list(range(80))
    assert first.items() <= whole.items()
    unlimited = house.submit(PROMPTS, asked)
    house.render(unlimited)
    assert fetched(house, unlimited, tmp_path / "unlimited") == whole
