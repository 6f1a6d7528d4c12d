"""Guards of the queue that no other test needs: `make mutants` found each without one."""

from typing import Any

import pytest
import redis

from jobs.queue_values import DoneUnit
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Claim, Clock, Submit, request_for


def test_tokens_rise_after_redis_forgot_the_last_one(
    queue: ShardQueue, submit: Submit, claim: Claim, client: redis.Redis, clock: Clock
) -> None:
    submit()
    [before] = claim()
    client.delete("{fewstep}:q1:fence")
    clock.forward(1)
    [after] = claim()
    assert int(after.token) > int(before.token)


def test_progress_never_goes_back(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    """A beat that was under way for long must not undo what a later one said."""
    submit(images=10, max_attempts=1, batch_images=2)
    [lease] = claim()
    for progress in (6, 4):
        assert queue.renew("w", [lease], 60_000, [progress]) == ["ok"]
    assert [one.progress for one in queue.leases()] == [6]


def test_a_lease_outlives_its_closed_job_until_the_next_renewal(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit()
    leases = claim(want=2)
    assert queue.finish("job", "failed", "why") == "ok"
    assert queue.renew("w", leases, 60_000) == ["lost", "lost"]
    assert queue.leases() == []


def test_a_part_is_done_once(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit(images=10, max_attempts=1)
    [whole] = claim()
    assert queue.fail("job", whole.unit, whole.token, "crash", progress=0) == "split"
    [part] = claim()
    assert queue.done("job", part.unit, part.token) == "ok"
    assert queue.done("job", part.unit, part.token) == "duplicate"


def test_a_released_unit_is_found_after_the_clock_went_back(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit(images=10)
    [lease] = claim()
    assert queue.fail("job", lease.unit, lease.token, "release") == "released"
    clock.forward(-3_600_000)
    assert [one.unit for one in claim() or claim()] == [lease.unit]


def test_no_more_images_fail_than_the_unit_has(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=10)
    [lease] = claim()
    assert queue.done("job", lease.unit, lease.token, failed=999) == "ok"
    job = queue.job("job")
    assert job is not None
    assert (job.done_images, job.failed_images) == (0, 10)


def test_after_many_crashes_a_unit_waits_a_minute_and_no_longer(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit(images=10, max_attempts=20)
    for _ in range(9):
        clock.forward(60_000)
        [lease] = claim()
        assert queue.fail("job", lease.unit, lease.token, "crash", progress=3) == "retry"
    assert claim() == []
    clock.forward(59_999)
    assert claim() == []
    clock.forward(1)
    assert len(claim()) == 1


def test_a_later_retry_is_found_although_an_earlier_one_came_to_nothing(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    """The unit that was due first is done by a zombie: the job wakes for nothing, and once more."""
    submit(images=20, max_attempts=9)
    for lease in claim(want=2):
        assert queue.fail("job", lease.unit, lease.token, "crash", progress=0) == "retry"
    early, late = claim(want=2)
    queue.fail("job", early.unit, early.token, "crash", progress=early.first)
    clock.forward(1_000)
    queue.fail("job", late.unit, late.token, "crash", progress=late.first)
    assert claim() == []
    assert queue.done("job", early.unit, early.token) == "late"
    clock.forward(3_000)
    assert claim() == []
    clock.forward(1_000)
    assert [one.unit for one in claim()] == [late.unit]


def test_renderers_that_are_gone_leave_the_list(queue: ShardQueue, clock: Clock) -> None:
    queue.heartbeat("gone", {}, ttl_ms=60_000)
    clock.forward(60_001)
    queue.heartbeat("here", {}, ttl_ms=60_000)
    assert [one.worker for one in queue.renderers()] == ["here"]


def test_a_restore_that_died_half_way_books_nothing_twice(
    queue: ShardQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    op = queue._op

    def dies(name: str, *args: str | int | float) -> Any:
        answer = op(name, *args)
        if name == "restore":
            raise Died
        return answer

    monkeypatch.setattr("jobs.shard_queue.RESTORE_CHUNK", 4)
    queue.submit(request_for(images=30), restoring=True)
    # A whole shard; then a part, a picture given up, and what is left of theirs.
    done = [DoneUnit("0", failed=2), DoneUnit("1:10-15", failed=1), DoneUnit("2")]
    dead = {"1:15-16": "it killed its process"}
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_op", dies)
        with pytest.raises(Died):
            queue.restore("job", done, dead=dead)
    assert queue.restore("job", done, dead=dead) == "ok"
    job = queue.job("job")
    assert job is not None
    assert (job.done_images, job.failed_images, job.dead_images) == (22, 3, 1)


def test_who_is_gone_awaits_no_last_word(
    queue: ShardQueue, submit: Submit, client: redis.Redis
) -> None:
    submit("closed")
    submit("ended")
    queue.finish("closed", "failed")
    queue.state("ended", "cancel")
    client.zadd("{fewstep}:q1:finishing", {"never": 1, "closed": 2})
    queue.reap()
    assert queue.finishing() == ["ended"]
