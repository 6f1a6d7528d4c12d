"""Guards of the queue that no other test needs: `make mutants` found each without one."""

import redis

from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Claim, Clock, Submit


def test_tokens_rise_after_redis_forgot_the_last_one(
    queue: ShardQueue, submit: Submit, claim: Claim, client: redis.Redis, clock: Clock
) -> None:
    submit()
    [before] = claim()
    client.delete("{fewstep}:q1:fence")
    clock.forward(1)
    [after] = claim()
    assert int(after.token) > int(before.token)


def test_a_tenant_that_holds_nothing_is_not_kept(
    queue: ShardQueue, submit: Submit, claim: Claim, client: redis.Redis
) -> None:
    submit()
    for lease in claim(want=9):
        queue.done("job", lease.unit, lease.token)
    assert client.hgetall("{fewstep}:q1:tenant_units") == {}


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
