"""Recipes: read once, in vain not twice a second, and never at the cost of a step."""

import logging
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from jobs.errors import DamagedJob, Unreachable
from jobs.queue_values import QueueJob
from jobs.recipe import Recipe, RecipeRequest
from scheduler import recipes
from scheduler.recipes import AGAIN_S, SELDOM_S, Recipes
from tests.rendered_jobs import CATALOG
from tests.servers import wait_until

RECIPE = CATALOG.resolve(RecipeRequest())


def job(job_id: str) -> QueueJob:
    return QueueJob(
        job_id=job_id,
        tenant="ann",
        engine_key="engine",
        state="run",
        outcome="",
        priority=4,
        images=10,
        shard_images=10,
        shards=1,
        cursor=0,
        done_images=0,
        failed_images=0,
        dead_images=0,
        units_in_flight=0,
        images_in_flight=0,
        device_ms=0,
        unit_cost=1.0,
        spec_sha256="",
        restoring=False,
        submitted_ms=0,
        first_claim_ms=None,
        last_progress_ms=None,
        finished_ms=None,
    )


class Shelf:
    """Where recipes are read: what does not read raises, what hangs waits for `go_on`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.hangs: set[str] = set()
        self.go_on = threading.Event()

    def read(self, tenant: str, job_id: str) -> Recipe:
        self.reads.append(job_id)
        if job_id in self.hangs:
            assert self.go_on.wait(60)
        if job_id in self.errors:
            raise self.errors[job_id]
        return RECIPE

    def ask(self, known: Recipes, *job_ids: str, engine: str = "engine") -> int:
        """One look of the loop; how many jobs were read for it."""
        before = len(self.reads)
        known.look({engine: [job(job_id) for job_id in job_ids]})
        return len(self.reads) - before


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setattr(recipes, "PATIENCE_S", 30)
    shelf = Shelf()
    yield shelf
    shelf.go_on.set()


@pytest.fixture
def known(shelf: Shelf) -> Iterator[Recipes]:
    known = Recipes(shelf.read, lambda: shelf.now)
    yield known
    known.close()


def test_a_job_that_does_not_read_is_tried_ever_more_rarely_and_told_of_once(
    shelf: Shelf, known: Recipes, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.errors["bad"] = DamagedJob("it is no job")
    tried = []
    with caplog.at_level(logging.WARNING):
        for step in range(2 * 1_000):
            shelf.now = step / 2
            if shelf.ask(known, "bad"):
                tried.append(shelf.now)
    pauses = [after - before for before, after in pairwise(tried)]
    assert pauses[:3] == [AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S]
    assert max(pauses) == SELDOM_S
    assert [record.getMessage() for record in caplog.records] == [
        "job_unreadable job=bad error=it is no job"
    ]


def test_of_an_engines_jobs_one_that_reads_is_enough(shelf: Shelf, known: Recipes) -> None:
    shelf.errors["bad"] = DamagedJob("it is no job")
    assert shelf.ask(known, "bad", "good") == 2
    assert known.get("engine") is RECIPE
    assert known.base_of("engine") == RECIPE.base_key
    assert shelf.ask(known, "bad", "good") == 0


def test_a_job_that_comes_later_does_not_wait_for_one_that_does_not_read(
    shelf: Shelf, known: Recipes
) -> None:
    shelf.errors["bad"] = DamagedJob("it is no job")
    shelf.ask(known, "bad")
    assert shelf.ask(known, "bad", "good") == 1
    assert "engine" in known


def test_a_store_that_is_away_says_nothing_of_a_job(
    shelf: Shelf, known: Recipes, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.errors["job"] = Unreachable("the store does not answer")
    with caplog.at_level(logging.WARNING):
        assert shelf.ask(known, "job", "other") == 1
        assert shelf.ask(known, "job") == 0
    assert "job_unreadable" not in caplog.text
    del shelf.errors["job"]
    shelf.now += AGAIN_S
    assert shelf.ask(known, "job") == 1
    assert "engine" in known


def test_a_store_that_hangs_holds_up_no_step_and_no_other_engine(
    shelf: Shelf, known: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "PATIENCE_S", 0.01)
    shelf.hangs.add("slow")
    assert shelf.ask(known, "slow") <= 1
    for _ in range(3):
        shelf.ask(known, "slow")
    monkeypatch.setattr(recipes, "PATIENCE_S", 30)
    shelf.ask(known, "other", engine="another")
    assert "another" in known
    assert "engine" not in known
    shelf.go_on.set()

    def read() -> bool:
        shelf.ask(known, "slow")
        return "engine" in known

    wait_until(read, "the recipe", 30)
    assert shelf.reads.count("slow") == 1


def test_no_more_is_remembered_than_is_of_use(
    shelf: Shelf, known: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "KEPT", 3)
    for number in range(9):
        shelf.ask(known, "job", engine=f"engine-{number}")
        known.base_of(f"engine-{number}")
        known.forget({"engine-0"}, ())
    assert [n for n in range(9) if f"engine-{n}" in known] == [0, 7, 8]
    assert [n for n in range(9) if known.base_of(f"engine-{n}")] == [0, 7, 8]


def test_troubles_of_jobs_that_are_gone_are_forgotten(shelf: Shelf, known: Recipes) -> None:
    shelf.errors["bad"] = DamagedJob("it is no job")
    shelf.ask(known, "bad")
    known.forget({"engine"}, {"bad"})
    assert shelf.ask(known, "bad") == 0
    known.forget({"engine"}, ())
    assert shelf.ask(known, "bad") == 1
