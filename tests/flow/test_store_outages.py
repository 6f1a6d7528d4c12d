"""A store that is away, however long: work waits for it with its lease, and nothing is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.catalog import Catalog
from jobs.errors import Unreachable
from jobs.events import START, EventFeed
from jobs.fetch import fetch_dataset
from jobs.job import Job, JobRequest
from jobs.redis_client import control_client
from jobs.store import Store
from tests.flow.one_machine import House, table_rows
from workers import claims, deliver
from workers.engine import Engine

PROMPTS = "\n".join(f"a big red circle {number}" for number in range(8))
#: More than the releases that are free and the crashes after them.
OFTEN = 40


@pytest.fixture
def house(
    redis_url: str, store: Store, catalog: Catalog, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> House:
    monkeypatch.setattr(claims, "STORE_AWAY_S", 0.001)
    return House(redis_url, store, catalog, engine)


def away_at_first(call: Callable[..., Any], times: int) -> Callable[..., Any]:
    """`call`, after the store was away that often."""
    left = iter(range(times))

    def called(*arguments: Any, **rest: Any) -> Any:
        if next(left, None) is not None:
            raise Unreachable("the store does not answer (made up)")
        return call(*arguments, **rest)

    return called


def events_of(house: House, job: Job) -> list[str]:
    page = EventFeed(control_client(house.redis_url)).read(START, job_id=job.id)
    return [event.type for event in page.events]


def handed_out_once(house: House, job: Job, folder: Path) -> None:
    fetch_dataset(house.store, house.layout(job), folder)
    rows = table_rows(folder)
    assert sorted(row["image"] for row in rows) == list(range(8))
    assert {(row["status"], row["attempt"]) for row in rows} == {("ok", 1)}
    told = events_of(house, job)
    assert told.count("claimed") == 2
    assert "release" not in told


def test_an_outage_before_a_unit_is_rendered(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are known already; whether it lies in the store cannot be asked."""
    monkeypatch.setattr(deliver, "adopt_unit", away_at_first(deliver.adopt_unit, OFTEN))
    job = house.submit(PROMPTS, JobRequest(shard_images=4, seed=1))
    house.render(job)
    handed_out_once(house, job, tmp_path)


def test_an_outage_in_the_middle_of_a_commit(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures are kept until the store answers, and written then."""
    job = house.submit(PROMPTS, JobRequest(shard_images=4, seed=1))
    head, answer = house.store.head, away_at_first(house.store.head, OFTEN)

    def sometimes(key: str) -> Any:
        return (answer if key == house.layout(job).job else head)(key)

    monkeypatch.setattr(house.store, "head", sometimes)
    monkeypatch.setattr(deliver, "commit_unit", away_at_first(deliver.commit_unit, 2))
    house.render(job)
    handed_out_once(house, job, tmp_path)


def test_a_unit_that_alone_cannot_be_written_is_given_back(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers: to wait for it with this unit would be to wait for ever."""
    monkeypatch.setattr(deliver, "commit_unit", away_at_first(deliver.commit_unit, 3))
    job = house.submit(PROMPTS, JobRequest(shard_images=8, seed=1))
    house.render(job)
    assert events_of(house, job).count("release") == 1
    fetch_dataset(house.store, house.layout(job), tmp_path)
    assert len(table_rows(tmp_path)) == 8
