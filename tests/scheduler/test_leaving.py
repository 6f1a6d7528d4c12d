"""Nodes that go, or are gone: who is told, whose units are offered again, and whose are not."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from jobs.queue_values import Lease, RendererRecord
from jobs.redis_client import control_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from scheduler.chores import Chores
from scheduler.leaving import Leaving, Nodes
from scheduler.loop import Scheduler
from scheduler.pool import PoolActor
from scheduler.sharing import Sharing
from tests.jobs.conftest import request_for
from tests.rendered_jobs import CATALOG

ENGINE = "engine"


@dataclass
class Cluster:
    """Ray's side, as the test says it is."""

    said: Nodes = field(default_factory=Nodes)
    told: list[tuple[str, float | None]] = field(default_factory=list)
    there: list[PoolActor] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    def nodes(self) -> Nodes:
        return self.said

    def drain(self, name: str, seconds: float | None = None) -> None:
        self.told.append((name, seconds))

    def share_of(self, engine_key: str) -> float:
        return 1.0

    def withdraw(self, name: str) -> bool:
        self.withdrawn.append(name)
        return True

    def hear(self, renderers: Sequence[RendererRecord]) -> None:
        """Nobody shares anything here."""

    def actors(self) -> list[PoolActor]:
        return self.there

    def slots(self) -> int:
        return 2


@pytest.fixture
def queue(redis_url: str) -> Iterator[ShardQueue]:
    with control_client(redis_url) as client:
        yield ShardQueue(client)


def live(queue: ShardQueue, name: str, node: str) -> None:
    queue.heartbeat(f"{name}.1", {"actor": name, "ray_node": node, "engine_key": ENGINE})


def claim(queue: ShardQueue, name: str) -> Lease:
    return queue.claim(f"{name}.1", f"nonce of {name}", ENGINE, 1, 60_000)[0]


def test_renderers_of_a_closing_node_are_told_how_long_they_have(queue: ShardQueue) -> None:
    for name, node in (("a", "closes"), ("b", "closes, nobody knows when"), ("c", "stays")):
        live(queue, name, node)
    # From before nodes were named.
    queue.heartbeat("old.1", {"actor": "old"})
    cluster = Cluster(Nodes({"closes": 30.0, "closes, nobody knows when": None}))
    leaving = Leaving(queue, cluster)
    leaving.look()
    assert sorted(cluster.told) == [("a", 30.0), ("b", None)]
    assert leaving.names == {"a", "b"}
    cluster.said = Nodes()
    leaving.look()
    assert leaving.names == frozenset()


def test_what_a_lost_node_held_is_offered_again_at_once_and_counts_as_no_death(
    queue: ShardQueue,
) -> None:
    queue.submit(request_for("job", engine_key=ENGINE, images=20, shard_images=10))
    for name, node in (("a", "lost"), ("b", "stays")):
        live(queue, name, node)
    lost, kept = claim(queue, "a"), claim(queue, "b")
    Leaving(queue, Cluster(Nodes(lost=frozenset({"lost"})))).look()
    assert [one.unit for one in queue.leases()] == [kept.unit]
    assert [one.worker for one in queue.renderers()] == ["b.1"]
    again = queue.claim("c.1", "another nonce", ENGINE, 1, 60_000)[0]
    assert (again.unit, again.attempt) == (lost.unit, 1)
    assert queue.done("job", lost.unit, lost.token, arbiter="redis") == "fenced"


def test_who_is_on_a_closing_node_takes_no_slot_from_who_comes_for_it(
    queue: ShardQueue, store: Store
) -> None:
    cluster = Cluster(
        Nodes({"closes": 30.0}), there=[PoolActor("a", ENGINE), PoolActor("b", ENGINE)]
    )
    live(queue, "a", "closes")
    live(queue, "b", "stays")
    scheduler = Scheduler(Settings(), queue, store, CATALOG, cluster)  # type: ignore[arg-type]
    assert [one.name for one in scheduler.observe().renderers] == ["a", "b"]
    scheduler.leaving.look()
    assert [one.name for one in scheduler.observe().renderers] == ["b"]


def test_who_has_not_come_yet_and_has_nothing_to_do_any_more_is_withdrawn_at_once(
    queue: ShardQueue, store: Store
) -> None:
    cluster = Cluster(there=[PoolActor("a", ENGINE), PoolActor("b", ENGINE)])
    live(queue, "a", "stays")
    scheduler = Scheduler(Settings(), queue, store, CATALOG, cluster)  # type: ignore[arg-type]
    queue.submit(request_for("job", engine_key=ENGINE))
    scheduler.leaving.look()
    scheduler.step()
    assert not cluster.withdrawn
    queue.state("job", "cancel")
    scheduler.step()
    assert cluster.withdrawn == ["b"]
    # Where some are to be there without work, those on their way are too.
    facts = replace(scheduler.observe(), least=1)
    assert not scheduler.leaving.in_vain(facts)


def test_a_scheduler_hears_of_shares_before_it_counts_slots(
    queue: ShardQueue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is started again finds three renderers on a device: none of them is too many."""
    stop = threading.Event()

    class Device(Cluster):
        """One, of which three renderers have a third each."""

        def __init__(self) -> None:
            super().__init__(there=[PoolActor(name, ENGINE) for name in "abc"])
            self.sharing = Sharing(4)

        def hear(self, renderers: Sequence[RendererRecord]) -> None:
            self.sharing.hear(renderers)

        def slots(self) -> int:
            stop.set()
            return self.sharing.slots([one.name for one in self.there], 1)

    for name in "abc":
        queue.heartbeat(f"{name}.1", {"actor": name, "engine_key": ENGINE, "share": "0.3333"})
    queue.submit(request_for("job", engine_key=ENGINE, images=30, shard_images=10))
    monkeypatch.setattr(Chores, "start", lambda *_: [])
    cluster = Device()
    scheduler = Scheduler(Settings(), queue, store, CATALOG, cluster)  # type: ignore[arg-type]
    scheduler.run(stop)
    assert cluster.told == []
