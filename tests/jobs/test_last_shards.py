"""The last shards of a job are divided among the renderers at work: none holds up its end."""

import pytest
import redis

from jobs.queue_values import Lease
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Claim, Submit


def units(leases: list[Lease]) -> list[str]:
    return [one.unit for one in leases]


@pytest.mark.parametrize(
    ("working", "expected"),
    [
        (1, ["0", "1", "2"]),
        (2, ["0", "1", "2:20-23", "2:23-26"]),
        (3, ["0", "1:10-15", "1:15-20", "2:20-23", "2:23-26"]),
        # Three batches at least: three parts of ten, and two of six.
        (99, ["0:0-4", "0:4-8", "0:8-10", "1:10-14", "1:14-18", "1:18-20", "2:20-23", "2:23-26"]),
    ],
)
def test_fewer_shards_than_renderers_are_handed_out_in_parts(
    queue: ShardQueue, submit: Submit, claim: Claim, working: int, expected: list[str]
) -> None:
    submit(images=26, batch_images=1)
    queue.note_working({"engine": working, "other": 50})
    leases = claim(want=20)
    assert units(leases) == expected
    assert all(one.sound for one in leases)
    for lease in leases:
        assert queue.done("job", lease.unit, lease.token) == "ok"
    assert queue.finishing() == ["job"]


def test_a_part_for_several_is_no_suspect_and_has_every_attempt(
    queue: ShardQueue, submit: Submit
) -> None:
    submit(images=10, batch_images=1, max_attempts=2)
    queue.note_working({"engine": 2})
    claim = iter(range(99))

    def take() -> list[Lease]:
        return queue.claim("w", str(next(claim)), "engine", 9, 60_000, images=100)

    first, second = take()
    assert not first.suspect
    assert queue.done("job", second.unit, second.token) == "ok"
    assert queue.fail("job", first.unit, first.token, "crash", progress=0) == "retry"
    [again] = take()
    assert (again.unit, again.attempt, again.suspect) == (first.unit, 2, True)
    assert queue.fail("job", again.unit, again.token, "crash", progress=0) == "split"
    [part] = take()
    assert part.suspect
    assert not part.sound


def test_what_was_said_of_renderers_is_forgotten_with_them(
    queue: ShardQueue, submit: Submit, claim: Claim, client: redis.Redis
) -> None:
    queue.note_working({"engine": 9})
    assert client.ttl("{fewstep}:q1:working") > 0
    queue.note_working({})
    submit(images=10, batch_images=1)
    assert units(claim()) == ["0"]


def test_a_whole_shard_of_before_is_superseded(
    queue: ShardQueue, submit: Submit, claim: Claim, client: redis.Redis
) -> None:
    """Redis forgot that somebody had the shard; its images are parts by now."""
    submit(images=10, batch_images=1)
    [zombie] = claim()
    client.flushall()
    submit(images=10, batch_images=1)
    queue.note_working({"engine": 2})
    parts = claim(want=2)
    assert units(parts) == ["0:0-5", "0:5-10"]
    assert queue.done("job", zombie.unit, zombie.token) == "superseded"
    for part in parts:
        assert queue.done("job", part.unit, part.token) == "ok"


def test_a_shard_of_few_batches_stays_whole(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=20, batch_images=2)
    queue.note_working({"engine": 9})
    assert units(claim(want=9)) == ["0", "1"]


def test_where_other_units_wait_nothing_is_divided(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    """Eight renderers, and so many units that wait: six of others, and the two of this job."""
    submit(images=20, batch_images=1)
    queue.note_working({"engine": 8}, {"engine": 8, "other": 1})
    assert units(claim()) == ["0"]
    queue.note_working({"engine": 8}, {"engine": 6})
    assert units(claim()) == ["1:10-14"]


def test_no_more_parts_than_the_tenant_may_hold(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit("first", images=20, batch_images=1, tenant_cap=3)
    assert units(claim()) == ["0"]
    queue.note_working({"engine": 9})
    assert units(claim(want=9)) == ["1:10-15", "1:15-20"]
