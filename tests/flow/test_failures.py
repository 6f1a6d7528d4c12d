"""Images that cannot be made: the budget they may spend, and what becomes of the rest."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.catalog import Catalog
from jobs.failed import failed_page
from jobs.fetch import fetch_dataset, read_index
from jobs.job import Image, JobRequest
from jobs.recipe import Recipe
from jobs.results import outcome_of
from jobs.retry import retry_failed
from jobs.settings import Settings
from jobs.states import JobState
from jobs.store import Store
from tests.flow.one_machine import PREFIX, House, table_rows
from workers.engine import Engine
from workers.render import Batch, BatchRenderer

PROMPTS = "\n".join(f"a big red circle {number}" for number in range(12))


@pytest.fixture
def house(redis_url: str, store: Store, catalog: Catalog, engine: Engine) -> House:
    settings = Settings(lease_ms=5_000, renew_ms=200)
    return House(redis_url, store, catalog, engine, settings)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Images of which no picture can be made, for the test to fill and to empty."""
    found: set[int] = set()
    whole = BatchRenderer.render

    def render(self: BatchRenderer, recipe: Recipe, images: Sequence[Image]) -> Batch:
        if found & {image.index for image in images}:
            raise RuntimeError("no kernel for this image")
        return whole(self, recipe, images)

    monkeypatch.setattr(BatchRenderer, "render", render)
    return found


def test_a_job_stops_when_its_budget_is_spent(
    house: House, broken: set[int], tmp_path: Path
) -> None:
    broken |= {2, 3, 4}
    request = JobRequest(shard_images=2, seed=1, max_failed_rows=0.1)
    job = house.submit(PROMPTS, request)
    assert job.max_failed_rows == 1

    house.render(job)

    ended = house.queue.job(job.id)
    assert ended is not None
    assert (ended.state, ended.outcome, house.queue.leases()) == ("closed", "failed", [])
    index = read_index(house.store, house.layout(job))
    assert not index.complete
    assert 2 <= index.failed <= 3
    assert 2 <= index.ok < 12
    assert (ended.done_images, ended.failed_images) == (index.ok, index.failed)
    outcome = outcome_of(house.store, house.layout(job))
    assert outcome.state == JobState.FAILED
    assert outcome.reason == ended.reason
    assert ended.reason.startswith(f"{index.failed} of 12 images failed, more than the 1 that")
    assert f"{index.failed} x rendering failed: no kernel for this image" in ended.reason
    assert "retry-failed" in ended.reason
    assert house.store.head(house.layout(job).success) is None
    listed = failed_page(house.store, house.layout(job), job)
    assert (listed.ended, len(listed.failed)) == (True, index.failed)
    assert "in render\n" in listed.failed[0].traceback
    fetch_dataset(house.store, house.layout(job), tmp_path)
    rows = table_rows(tmp_path)
    assert sum(row["status"] == "ok" for row in rows) == index.ok


def test_what_is_retried_has_the_pixels_it_would_have_had(
    house: House, broken: set[int], tmp_path: Path
) -> None:
    request = JobRequest(shard_images=4, seed=1)
    whole = house.submit(PROMPTS, request)
    house.render(whole)
    broken |= {1, 6, 7}
    job = house.submit(PROMPTS, request)
    house.render(job)

    again = retry_failed(
        house.store,
        house.queue,
        prefix=PREFIX,
        tenant="default",
        job_id=job.id,
        idempotency_key="key",
        now_ms=1_700_000_000_000,
    )
    broken.clear()
    house.render(job.model_copy(update={"id": again.id}))

    digests = []
    for one in (whole, job):
        fetch_dataset(house.store, house.layout(one), tmp_path / one.id)
        rows = [row for row in table_rows(tmp_path / one.id) if row["status"] == "ok"]
        digests.append({row["image"]: (row["seed"], row["sha256"]) for row in rows})
    assert len(digests[0]) == 12
    # The file holds its row's key nowhere: equal pixels are equal files.
    assert digests[1] == digests[0]
