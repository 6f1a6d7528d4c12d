"""A node that is to go: its renderers are told, others' are not, and its end is waited for."""

import pytest

from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue
from scheduler.drain_node import drain
from scheduler.pool import Pool


@pytest.fixture
def queue(redis_url: str) -> ShardQueue:
    return ShardQueue(control_client(redis_url))


def live(queue: ShardQueue, name: str, node: str) -> None:
    queue.heartbeat(f"{name}.1", {"actor": name, "node": node})


def test_renderers_of_this_node_alone_are_told_and_waited_for(queue: ShardQueue) -> None:
    live(queue, "a", "here")
    live(queue, "b", "elsewhere")
    told: list[str] = []

    def tell(name: str, seconds: float) -> None:
        assert 0 < seconds <= 20
        told.append(name)
        queue.leave(f"{name}.1")
        if name == "a":
            # Placed here before Ray knew that the node is closed.
            live(queue, "c", "here")

    assert drain(queue, "here", tell, 20, 0.01) == []
    assert told == ["a", "c"]
    assert [one.info["actor"] for one in queue.renderers()] == ["b"]


def test_those_that_are_still_at_work_in_the_end_are_named(queue: ShardQueue) -> None:
    live(queue, "a", "here")
    told: list[str] = []
    assert drain(queue, "here", lambda name, _: told.append(name), 0.05, 0.01) == ["a"]
    assert told == ["a"]


def test_where_the_device_is_given_slots_ask_no_cluster() -> None:
    """So that the first renderer waits for a node, and an autoscaler brings it."""
    assert Pool(7, "gpu").slots() == 7
    assert Pool(7, "cpu").slots() == 7
