"""Every job that waits or failed says why."""

from dataclasses import replace
from typing import Any

import pytest

from jobs.queue_values import QueueJob, RendererRecord
from jobs.shard_queue import ShardQueue
from jobs.states import TERMINAL, JobState
from jobs.waiting import reason_of
from tests.jobs.conftest import Submit

MINE, OTHER = "engine", "another"


@pytest.fixture
def record(queue: ShardQueue, submit: Submit) -> QueueJob:
    """A job that has just been submitted."""
    submit()
    job = queue.job("job")
    assert job is not None
    return job


def renderers(*states: str, engine: str = MINE, error: str = "") -> list[RendererRecord]:
    return [
        RendererRecord(f"w{n}", 0, {"engine_key": engine, "state": state, "error": error})
        for n, state in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("living", "age", "says"),
    [
        ([], None, "no scheduler is running"),
        ([], 31_000, "no scheduler is running"),
        ([], 1_000, "no renderer yet"),
        (renderers("rendering", engine=OTHER), 1_000, "no renderer yet"),
        (renderers("starting"), 1_000, "loading weights"),
        (renderers("loading", "starting"), None, "loading weights"),
        (renderers("compiling", "loading"), 1_000, "compiling its nets"),
        (renderers("rendering"), None, "behind other jobs"),
        (renderers("loading", "idle"), 1_000, "behind other jobs"),
        (renderers("waiting for the store"), 1_000, "its renderers cannot reach the store"),
        (renderers("broken", error="no weights"), 1_000, "its renderer cannot start: no weights"),
        (renderers("rendering", "broken", error="no room"), 1_000, "cannot start: no room"),
        (renderers("broken", error="x" * 900), 1_000, "its renderer cannot start: xxx"),
    ],
)
def test_a_waiting_job(
    record: QueueJob, living: list[RendererRecord], age: int | None, says: str
) -> None:
    for state in (JobState.WAITING, JobState.RUNNING):
        reason = reason_of(record, state, living, age)
        assert says in reason
        assert len(reason) <= 300


def test_a_job_of_which_images_are_being_made_waits_for_nothing(record: QueueJob) -> None:
    busy = changed(record, units_in_flight=1)
    assert reason_of(busy, JobState.RUNNING, [], None) == ""


@pytest.mark.parametrize(
    ("state", "changes", "says"),
    [
        (JobState.PAUSED, {}, "paused"),
        (JobState.CANCELLING, {"units_in_flight": 1}, "dropping its shards"),
        (JobState.CANCELLING, {}, "being closed"),
        (JobState.FINISHING, {}, "index, card and timing"),
        (JobState.STOPPING, {"failed_images": 4, "max_failed": 3}, "4 images failed, 3 may"),
        (JobState.FAILED, {"reason": "4 images failed, 3 may"}, "4 images failed, 3 may"),
        (JobState.WAITING, {"restoring": True}, "read back from the store"),
        (JobState.PAUSED, {"restoring": True}, "read back from the store"),
    ],
)
def test_every_other_state(
    record: QueueJob, state: JobState, changes: dict[str, Any], says: str
) -> None:
    assert says in reason_of(changed(record, **changes), state, [], None)


def test_no_state_is_silent_but_those_of_success(record: QueueJob) -> None:
    silent = {state for state in JobState if not reason_of(record, state, [], None)}
    assert silent <= TERMINAL


def changed(record: QueueJob, **changes: Any) -> QueueJob:
    return replace(record, **changes)
