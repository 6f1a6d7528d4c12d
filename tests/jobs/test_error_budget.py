"""The error budget: a job in which too many images fail stops, keeps what it has, and says so."""

import pytest
from pydantic import ValidationError

from jobs.job import JobRequest
from jobs.queue_values import DoneUnit
from jobs.shard_queue import ShardQueue
from jobs.states import JobState, state_of
from tests.jobs.conftest import Claim, Clock, Submit, request_for


def state(queue: ShardQueue) -> str:
    job = queue.job("job")
    assert job is not None
    return job.state


def test_a_job_goes_on_while_its_budget_lasts(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=40, max_failed=3)
    first, second, *_ = claim(want=2)
    assert queue.done("job", first.unit, first.token, failed=3) == "ok"
    assert state(queue) == "run"
    assert queue.done("job", second.unit, second.token, failed=1) == "ok"
    assert state(queue) == "stop"
    assert claim(want=9) == []
    assert queue.finishing() == ["job"]


def test_running_units_end_before_the_job_does(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit(images=40, max_failed=0)
    spends, commits, stops, gone = claim(want=4)
    assert queue.done("job", spends.unit, spends.token, failed=1) == "ok"
    assert queue.finishing() == []
    held = [commits, stops, gone]
    assert queue.renew("w", held, 60_000) == ["cancel"] * 3
    assert queue.done("job", commits.unit, commits.token) == "cancelled"
    assert queue.fail("job", stops.unit, stops.token, "release") == "cancelled"
    assert queue.state("job", "run") == "stop"
    assert queue.state("job", "cancel") == "stop"
    assert queue.finishing() == []
    clock.forward(60_000)
    queue.reap()
    assert queue.finishing() == ["job"]
    # The store knows of the unit that was committed meanwhile: its word counts.
    assert queue.finish("job", "failed", "why", counts=(19, 1)) == "ok"
    assert queue.finish("job", "failed", "why", counts=(19, 1)) == "duplicate"
    job = queue.job("job")
    assert job is not None
    assert (job.done_images, job.failed_images, job.reason) == (19, 1, "why")


def test_images_that_kill_count_as_well(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit(images=20, shard_images=1, max_attempts=1, max_failed=1)
    for _ in range(2):
        [lease] = claim()
        assert queue.fail("job", lease.unit, lease.token, "crash", "signal 11") == "dead"
    assert state(queue) == "stop"
    assert queue.finish("job", "failed", counts=(0, 2)) == "ok"
    job = queue.job("job")
    assert job is not None
    assert (job.failed_images, job.dead_images) == (0, 2)


@pytest.mark.parametrize(("limit", "end"), [(4, "stop"), (5, "fin"), (None, "fin")])
def test_the_last_unit_is_judged_as_the_first(
    queue: ShardQueue, submit: Submit, claim: Claim, limit: int | None, end: str
) -> None:
    submit(images=10, max_failed=limit)
    [lease] = claim()
    assert queue.done("job", lease.unit, lease.token, failed=5) == "ok"
    assert state(queue) == end
    assert queue.finishing() == ["job"]


def test_a_paused_job_is_stopped_too(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit(images=40, max_failed=0)
    [lease] = claim()
    queue.state("job", "pause")
    assert queue.done("job", lease.unit, lease.token, failed=1) == "ok"
    assert state(queue) == "stop"


def test_a_restored_job_remembers_what_it_spent(queue: ShardQueue, claim: Claim) -> None:
    queue.submit(request_for(images=40, max_failed=3), restoring=True)
    found = [DoneUnit("0", failed=2), DoneUnit("1", failed=2), DoneUnit("2", failed=2)]
    assert queue.restore("job", found) == "ok"
    job = queue.job("job")
    assert job is not None
    assert (job.state, job.failed_images, job.max_failed) == ("stop", 6, 3)
    assert claim() == []
    assert queue.finishing() == ["job"]


def test_its_user_sees_it_stopping() -> None:
    found = state_of("stop", "", started=True, in_flight=1, accounted=False)
    assert found is JobState.STOPPING


@pytest.mark.parametrize(
    ("asked", "images", "limit"),
    [
        (None, 10, 1_000),
        (None, 1_000_000, 500_000),
        (0, 10, 0),
        (7, 10, 7),
        (0.05, 20, 1),
        (0.29, 100, 29),
        (0.01, 50, 0),
    ],
)
def test_a_number_or_a_share(asked: float | None, images: int, limit: int) -> None:
    assert JobRequest(max_failed_rows=asked).failures(images)["max_failed_rows"] == limit


@pytest.mark.parametrize("wrong", [-1, 1.0, 1.5, 0.0, -0.1, True, "5", "5%", [1], 10**14])
def test_anything_else_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="a whole number of images, or a share"):
        JobRequest(max_failed_rows=wrong)  # type: ignore[arg-type]


def test_a_job_is_not_stopped_while_it_is_read_back(queue: ShardQueue) -> None:
    """It would be closed, by a scheduler, with half of what the store holds still to be told."""
    queue.submit(request_for(images=40, max_failed=0), restoring=True)
    assert queue._op("restore", "job", "", "done", "0", 1) == "ok"
    assert (state(queue), queue.finishing()) == ("pause", [])
    assert queue._op("restore", "job", "run", "done", "1", 0) == "ok"
    assert (state(queue), queue.finishing()) == ("stop", ["job"])


def test_only_a_closed_job_is_amended(queue: ShardQueue, submit: Submit) -> None:
    submit()
    assert not queue.amend("job", 1, "done", "", (25, 0))
    assert not queue.amend("nobody", 1)
    assert state(queue) == "run"
    queue.finish("job", "failed", "why")
    assert queue.amend("job", 1)
    job = queue.job("job")
    assert job is not None
    assert (job.outcome, job.reason, job.round) == ("failed", "why", 1)
