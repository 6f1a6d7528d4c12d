"""Leases and units: renewing, crashing, splitting, zombies, lost replies, wrong clocks."""

import pytest
import redis

from jobs.errors import InvalidInput
from jobs.queue_script import RECORDS
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Claim, Clock, Submit
from tests.servers import wait_until


def test_a_lease_lasts_as_long_as_it_is_renewed(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit(images=10)
    [lease] = claim(lease_ms=1_000)
    for index in range(5):
        clock.forward(900)
        assert queue.renew("w", [lease], 1_000, [index]) == ["ok"]
    [record] = queue.leases()
    assert (record.worker, record.progress, record.deadline_ms) == ("w", 4, clock.now + 1_000)
    clock.forward(1_000)
    [again] = claim()
    assert queue.renew("w", [lease], 1_000) == ["lost"]
    assert (again.unit, again.attempt) == ("0", 2)
    assert int(again.token) > int(lease.token)


def test_a_second_death_is_waited_after(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    """The first is most often the machine's; what kills twice in a row may kill a third time."""
    submit(images=10)
    [first] = claim()
    assert queue.fail("job", "0", first.token, "crash") == "retry"
    [second] = claim()
    assert queue.fail("job", "0", second.token, "crash") == "retry"
    assert claim() == []
    clock.forward(4_000)
    [third] = claim()
    assert third.attempt == 3


@pytest.mark.parametrize(("arbiter", "answer"), [("s3", "late"), ("redis", "fenced")])
def test_a_zombie_cannot_finish_where_redis_is_the_arbiter(
    queue: ShardQueue, submit: Submit, clock: Clock, claim: Claim, arbiter: str, answer: str
) -> None:
    submit(images=10)
    [zombie] = claim(lease_ms=1_000)
    clock.forward(1_000)
    queue.reap()
    clock.forward(2_000)
    [heir] = claim(worker="heir")
    assert queue.renew("w", [zombie], 60_000) == ["lost"]
    ids = (zombie.job_id, zombie.unit)
    assert queue.done(*ids, zombie.token, arbiter=arbiter) == answer  # type: ignore[arg-type]
    expected = ("duplicate", "lost") if answer == "late" else ("ok", "lost")
    assert queue.done(*ids, heir.token, arbiter=arbiter) == expected[0]  # type: ignore[arg-type]
    assert queue.renew("heir", [heir], 1_000) == [expected[1]]
    job = queue.job("job")
    assert job is not None
    assert (job.state, job.done_images) == ("fin", 10)


def test_only_one_output_wins(
    queue: ShardQueue, submit: Submit, clock: Clock, claim: Claim
) -> None:
    submit(images=10)
    [zombie] = claim(lease_ms=1_000)
    clock.forward(1_000)
    queue.reap()
    assert queue.win("job", "0", zombie.token) == ""
    clock.forward(2_000)
    [heir] = claim(lease_ms=1_000)
    assert queue.win("job", "0", heir.token) == heir.token
    clock.forward(1_000)
    queue.reap()
    clock.forward(4_000)
    # The winner died before it said done: who comes next adopts its output.
    [last] = claim()
    assert queue.win("job", "0", last.token) == heir.token
    assert queue.done("job", "0", last.token, arbiter="redis") == "ok"
    assert queue.win("job", "0", zombie.token) == ""


def test_a_poison_image_costs_itself_only(
    queue: ShardQueue, submit: Submit, clock: Clock, claim: Claim
) -> None:
    submit(images=1_000, shard_images=1_000, max_attempts=2, batch_images=8)
    crashes = 0
    finished: list[str] = []
    while not queue.finishing():
        clock.forward(60_000)
        for lease in claim(want=8):
            if lease.first <= 617 < lease.stop:
                crashes += 1
                at = max(lease.first, 616)
                queue.renew("w", [lease], 1_000, [at])
                queue.fail("job", lease.unit, lease.token, "crash", "segfault")
            else:
                assert queue.done("job", lease.unit, lease.token) == "ok"
                finished.append(lease.unit)
    pieces = queue.pieces("job")
    assert pieces.dead == {"617-618": "segfault"}
    assert pieces.parts == set(finished)
    assert pieces.split == {0: 0}
    assert {"0:0-616", "0:624-1000"} < pieces.parts
    # 2 on the whole, one on each of 8, 4 and 2 images, 2 on the last.
    assert crashes == 7
    job = queue.job("job")
    assert job is not None
    assert (job.done_images, job.dead_images) == (999, 1)


def test_a_death_counts_against_the_unit_in_hand(
    queue: ShardQueue, submit: Submit, clock: Clock
) -> None:
    """Not against the one that was rendered already, nor against the one claimed ahead."""
    submit(images=30, shard_images=10)
    rendered, in_hand, ahead = queue.claim("w", "n", "engine", 3, 1_000, ahead=True)
    assert queue.renew("w", [rendered, in_hand], 1_000, [10, 10]) == ["ok", "ok"]
    clock.forward(1_000)
    again = queue.claim("v", "n", "engine", 3, 1_000, ahead=True)
    attempts = {one.unit: one.attempt for one in again}
    assert attempts == {rendered.unit: 1, in_hand.unit: 2, ahead.unit: 1}


def test_a_unit_that_is_always_there_when_processes_die_is_counted_in_the_end(
    queue: ShardQueue, submit: Submit, clock: Clock
) -> None:
    submit(images=10, max_attempts=1)
    answers = []
    while not queue.pieces("job").split:
        [lease] = queue.claim("w", f"n{len(answers)}", "engine", 1, 1_000, ahead=True)
        answers.append(queue.fail("job", lease.unit, lease.token, "crash", "it died"))
    assert answers == ["released"] * 20 + ["split"]


def test_without_progress_a_shard_is_halved(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=10, max_attempts=1)
    [lease] = claim()
    assert queue.fail("job", lease.unit, lease.token, "crash") == "split"
    assert [one.unit for one in claim(want=9)] == ["0:0-5", "0:5-10"]


def test_a_zombie_of_a_split_shard_is_superseded(
    queue: ShardQueue, submit: Submit, clock: Clock, claim: Claim
) -> None:
    submit(images=10, max_attempts=1)
    [zombie] = claim(lease_ms=1_000)
    clock.forward(1_000)
    queue.reap()
    parts = claim(want=9)
    assert queue.done("job", "0", zombie.token) == "superseded"
    assert [queue.done("job", one.unit, one.token) for one in parts] == ["ok", "ok"]
    assert queue.done("job", "0", zombie.token) == "superseded"
    job = queue.job("job")
    assert job is not None
    assert (job.state, job.done_images) == ("fin", 10)


def test_a_late_finish_takes_the_unit_out_of_the_queue(
    queue: ShardQueue, submit: Submit, clock: Clock, claim: Claim
) -> None:
    submit(images=20)
    [zombie] = claim(lease_ms=1_000)
    clock.forward(1_000)
    queue.reap()
    assert queue.done("job", zombie.unit, zombie.token) == "late"
    clock.forward(60_000)
    assert [one.unit for one in claim(want=9)] == ["1"]


def test_what_was_given_up_stays_given_up(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit(images=1, max_attempts=1)
    [zombie] = claim()
    assert queue.fail("job", zombie.unit, zombie.token, "crash", "segfault") == "dead"
    assert queue.done("job", zombie.unit, zombie.token) == "superseded"
    assert queue.pieces("job").dead == {"0-1": "segfault"}


def test_a_part_that_is_split_again_is_not_counted_twice(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=10, max_attempts=1)
    assert queue.done("job", "0:0-5", "1") == "superseded"
    [whole] = claim()
    assert queue.win("job", "0", whole.token) == whole.token
    assert queue.fail("job", "0", whole.token, "crash") == "split"
    assert queue.win("job", "0", whole.token) == ""
    first, second = claim(want=2)
    assert queue.fail("job", first.unit, first.token, "crash") == "split"
    assert queue.done("job", first.unit, first.token) == "superseded"
    assert queue.done("job", second.unit, second.token) == "ok"
    assert queue.pieces("job").split == {0: 5}


def test_releasing_is_free_until_it_loops(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit(images=10)
    for _ in range(20):
        [lease] = claim()
        assert queue.fail("job", lease.unit, lease.token, "release", "drain") == "released"
        assert lease.attempt == 1
    [lease] = claim()
    assert queue.fail("job", lease.unit, lease.token, "release", "drain") == "retry"


def test_a_clock_set_back_delays_nothing_for_long(
    queue: ShardQueue, submit: Submit, clock: Clock, claim: Claim
) -> None:
    submit(images=20)
    crashed, vanished = claim(want=2, lease_ms=600_000)
    queue.fail("job", crashed.unit, crashed.token, "crash")
    [crashed] = claim(lease_ms=600_000)
    queue.fail("job", crashed.unit, crashed.token, "crash")
    clock.forward(-3_600_000)
    [retry] = claim(lease_ms=600_000)
    assert retry.unit == crashed.unit
    assert int(retry.token) > int(vanished.token)
    clock.forward(60_000)
    assert queue.reap() == 1
    assert queue.done("job", retry.unit, retry.token, arbiter="redis") == "ok"


def test_nonsense_units_change_nothing(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit()
    [lease] = claim()
    for unit in ("3", "0:0-11", "0:5-5", "1:0-5", "99999999"):
        assert queue.done("job", unit, lease.token) == "unknown"
    with pytest.raises(InvalidInput, match="no unit"):
        queue.done("job", "0|x", lease.token)
    with pytest.raises(InvalidInput, match="progress"):
        queue.renew("w", [lease], 1_000, [1, 2])


def test_who_lives(client: redis.Redis, queue: ShardQueue, clock: Clock) -> None:
    queue.heartbeat("w1", {"engine": "e"}, ttl_ms=60_000)
    queue.heartbeat("w2", {}, ttl_ms=20)
    assert queue.scheduler_age_ms() is None
    queue.scheduler_beat()
    clock.forward(1_234)
    assert queue.scheduler_age_ms() == 1_234
    wait_until(lambda: len(queue.renderers()) == 1, "the short heartbeat to run out")
    [record] = queue.renderers()
    assert (record.worker, record.info, record.beat_ms) == (
        "w1",
        {"engine": "e"},
        clock.now - 1_234,
    )
    [short] = queue.renderers_of(["engine", "never said"])
    assert short == record
    queue.leave("w1")
    assert queue.renderers() == queue.renderers_of(["engine"]) == []


def test_all_that_a_job_is_can_be_read_of_many(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=100)
    [lease] = claim()
    assert queue.done("job", lease.unit, lease.token, 1, 500) == "ok"
    claim()
    assert queue.state("job", "cancel", discard=True) == "cancel"
    names = [f"job-{number}" for number in range(RECORDS + 1)]
    for name in names:
        submit(name)
    found = queue.open_jobs()
    assert [one.job_id for one in found] == ["job", *names]
    assert found == [queue.job(one.job_id) for one in found]


def test_a_lease_of_the_release_before_is_held_and_ends(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock, client: redis.Redis
) -> None:
    """It tells no milliseconds of the device; a unit whose lease does not read would be lost."""
    submit(images=10)
    held = claim()
    owners = queue.key("owners")
    for name, owner in client.hgetall(owners).items():  # type: ignore[union-attr]
        client.hset(owners, name, owner.rpartition("|")[0])

    assert [one.worker for one in queue.leases()] == ["w"]
    assert queue.renew("w", held, 60_000, [None]) == ["ok"]
    clock.forward(60_001)
    queue.reap()
    again = claim()
    assert [one.unit for one in again] == [held[0].unit]
    assert queue.done("job", again[0].unit, again[0].token) == "ok"
    record = queue.job("job")
    assert record is not None
    assert (record.state, record.units_in_flight) == ("fin", 0)
