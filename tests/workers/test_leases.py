"""What a renderer does about its leases: renew while work moves, stop when they are over."""

import errno
from collections.abc import Iterator

import pytest

from jobs.errors import LeaseLost
from jobs.queue_values import SubmitRequest
from jobs.redis_client import control_client, heartbeat_client
from jobs.shard_queue import ShardQueue
from tests.servers import wait_until
from workers.leases import STALL_S, Held, LeaseKeeper, end_predecessor

LEASE_MS = 40_000
ENGINE = "engine"


class Clock:
    """Seconds that only a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(redis_url: str) -> Iterator[ShardQueue]:
    client = control_client(redis_url)
    made = ShardQueue(client)
    made.submit(
        SubmitRequest(
            job_id="job",
            tenant="default",
            engine_key=ENGINE,
            images=8,
            shard_images=2,
            spec_sha256="0",
        )
    )
    yield made
    made.finish("job", "failed")
    client.close()


@pytest.fixture
def keeper(redis_url: str, clock: Clock) -> Iterator[LeaseKeeper]:
    client = heartbeat_client(redis_url)
    made = LeaseKeeper(ShardQueue(client), "r.1", LEASE_MS, 1_000, lambda: {"state": "idle"}, clock)
    made.moved()
    yield made
    made.stop()
    client.close()


def hold(queue: ShardQueue, keeper: LeaseKeeper, clock: Clock) -> Held:
    leases = queue.claim(keeper.worker, f"n{clock.now}", ENGINE, 1, LEASE_MS)
    return keeper.hold(leases[0], clock.now)


def test_a_beat_renews(queue: ShardQueue, keeper: LeaseKeeper, clock: Clock) -> None:
    held = hold(queue, keeper, clock)
    fence = held.deadline
    clock.now += 10
    keeper.beat()
    assert held.deadline == fence + 10
    assert [one.worker for one in queue.renderers()] == ["r.1"]


def test_without_a_beat_the_work_is_given_up_before_others_start_it(
    queue: ShardQueue, keeper: LeaseKeeper, clock: Clock
) -> None:
    held = hold(queue, keeper, clock)
    held.check(clock.now + LEASE_MS / 1e3 - 6)
    with pytest.raises(LeaseLost, match="ran out"):
        held.check(clock.now + LEASE_MS / 1e3 - 5)


def test_a_hang_is_not_renewed(queue: ShardQueue, keeper: LeaseKeeper, clock: Clock) -> None:
    """The heartbeat thread lives on when the device hangs: the lease must not."""
    held = hold(queue, keeper, clock)
    fence = held.deadline
    clock.now += STALL_S + 1
    keeper.beat()
    assert held.deadline == fence
    keeper.moved()
    keeper.beat()
    assert held.deadline > fence


def test_what_cannot_be_said_ends_no_renewal(redis_url: str, queue: ShardQueue) -> None:
    """A process without an open file left cannot tell its memory, and has leases all the same."""
    troubles = [OSError(errno.EMFILE, "too many open files (made up)")]

    def about() -> dict[str, str]:
        if troubles:
            raise troubles.pop()
        return {"state": "idle"}

    with heartbeat_client(redis_url) as client:
        keeper = LeaseKeeper(ShardQueue(client), "r.2", LEASE_MS, 1_000, about)
        keeper.start()
        wait_until(lambda: "r.2" in {one.worker for one in queue.renderers()}, "its beat")
        keeper.stop()


@pytest.mark.parametrize("state", ["cancel", "pause"])
def test_the_users_will_arrives_with_a_beat(
    queue: ShardQueue, keeper: LeaseKeeper, clock: Clock, state: str
) -> None:
    held = hold(queue, keeper, clock)
    queue.state("job", state)  # type: ignore[arg-type]
    keeper.beat()
    assert held.verdict == state
    if state == "cancel":
        with pytest.raises(LeaseLost, match="cancel"):
            held.check(clock.now)


@pytest.mark.parametrize("state", ["cancel", "pause"])
def test_the_users_will_is_known_long_before_the_next_beat(
    redis_url: str, queue: ShardQueue, clock: Clock, state: str
) -> None:
    """Renewing every ten minutes: without a look in between, nothing would arrive in this test."""
    client = heartbeat_client(redis_url)
    keeper = LeaseKeeper(ShardQueue(client), "r.1", LEASE_MS, 600_000, dict)
    held = hold(queue, keeper, clock)
    keeper.start()
    try:
        wait_until(lambda: bool(queue.renderers()), "the first beat")
        queue.state("job", state)  # type: ignore[arg-type]
        wait_until(lambda: held.verdict == state, "the user's will")
        if state == "pause":
            queue.state("job", "run")
            wait_until(lambda: held.verdict == "ok", "the user's second thoughts")
    finally:
        keeper.stop()
        client.close()


def test_a_successor_ends_the_leases_of_the_dead(
    queue: ShardQueue, keeper: LeaseKeeper, clock: Clock
) -> None:
    """An actor that Ray started again does not wait for its former self's leases to run out."""
    held = hold(queue, keeper, clock)
    other = queue.claim("someone.1", "n", ENGINE, 1, LEASE_MS)
    held.device_ms = 12.4
    keeper.beat()
    assert end_predecessor(queue, "r", "r.2") == 1
    job = queue.job("job")
    assert job is not None
    assert job.spent_ms == 12
    assert [lease.token for lease in queue.leases()] == [other[0].token]
    keeper.beat()
    assert held.verdict == "lost"
    assert end_predecessor(queue, "r", "r.2") == 0


def test_a_successor_spares_what_was_claimed_ahead(
    queue: ShardQueue, keeper: LeaseKeeper, clock: Clock
) -> None:
    """Only the unit in hand may have killed the process; Redis knows it before it is begun."""
    claimed = queue.claim(keeper.worker, "n", ENGINE, 3, LEASE_MS, ahead=True)
    rendered, in_hand, ahead = (keeper.hold(lease, clock.now) for lease in claimed)
    keeper.begin(rendered)
    rendered.progress = rendered.lease.stop
    keeper.begin(in_hand)
    assert end_predecessor(queue, "r", "r.2") == 3
    again = queue.claim("r.2", "n", ENGINE, 64, LEASE_MS)
    attempts = {one.unit: one.attempt for one in again}
    assert attempts.pop(in_hand.lease.unit) == 2
    assert attempts == {rendered.lease.unit: 1, ahead.lease.unit: 1, "3": 1}


def test_what_an_earlier_engine_of_the_same_process_could_not_give_back_killed_nobody(
    queue: ShardQueue, keeper: LeaseKeeper, clock: Clock
) -> None:
    """Redis did not hear it then; the process lives, so no unit is to blame."""
    held = hold(queue, keeper, clock)
    keeper.begin(held)
    assert end_predecessor(queue, "r", "r.2", crashed=False) == 1
    again = queue.claim("r.2", "n", ENGINE, 64, LEASE_MS)
    assert {one.unit: one.attempt for one in again}[held.lease.unit] == 1
    keeper.beat()
    assert held.verdict == "lost"
