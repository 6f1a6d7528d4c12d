"""The scheduler's chores: finishing holds placing up for nobody, a lost memory comes back."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from jobs.queue_values import RendererRecord
from jobs.redis_client import control_client
from jobs.rows import Row
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from scheduler import chores
from scheduler.chores import Chores
from scheduler.loop import Scheduler
from tests.jobs.conftest import request_for
from tests.rendered_jobs import CATALOG, PREFIX, Workshop
from tests.servers import running_redis, wait_until

ROWS = [Row(prompt=f"prompt {n}") for n in range(6)]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with control_client(redis_url) as client:
        yield client


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "REAP_S", 0.05)
    monkeypatch.setattr(chores, "FINISH_S", 0.02)
    monkeypatch.setattr(chores, "MEMORY_S", 0.05)


class Looks:
    """A pool without renderers that counts how often the scheduler looked at it."""

    def __init__(self) -> None:
        self.count = 0

    def actors(self) -> list[Any]:
        self.count += 1
        return []

    def slots(self) -> int:
        return 0

    def share_of(self, engine_key: str) -> float:
        return 1.0

    def hear(self, renderers: Sequence[RendererRecord]) -> None:
        """Nobody shares anything here."""


@contextmanager
def scheduling(shop: Workshop) -> Iterator[Looks]:
    """A scheduler at work."""
    stop, pool = threading.Event(), Looks()
    scheduler = Scheduler(Settings(s3_prefix=PREFIX), shop.queue, shop.store, CATALOG, pool)  # type: ignore[arg-type]
    thread = threading.Thread(target=scheduler.run, args=(stop,))
    thread.start()
    try:
        yield pool
    finally:
        stop.set()
        thread.join()


def test_a_store_that_is_slow_does_not_delay_placing(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.submit(ROWS)
    shop.render(job)
    put, asked, go_on = shop.store.put, threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        asked.set()
        assert go_on.wait(60)
        return put(*arguments, **options)

    monkeypatch.setattr(shop.store, "put", slow)
    with scheduling(shop) as pool:
        assert asked.wait(30)
        seen = pool.count
        wait_until(lambda: pool.count > seen + 2, "the scheduler to go on placing", 30)
        assert shop.record(job.id).state == "fin"
        go_on.set()
        wait_until(lambda: shop.record(job.id).state == "closed", "the job's end", 30)


def test_an_emptied_queue_comes_back_by_itself(shop: Workshop, client: redis.Redis) -> None:
    job = shop.submit(ROWS, shard_images=2)
    with scheduling(shop):
        wait_until(lambda: shop.queue.restored_in() is not None, "the first look", 30)
        shop.render(job, units=1)
        client.flushall()
        wait_until(lambda: shop.queue.job(job.id) is not None, "the job to be back", 30)
        wait_until(lambda: not shop.record(job.id).restoring, "all of it", 30)
        assert shop.record(job.id).done_images == 2
        shop.render(job)
        wait_until(lambda: shop.record(job.id).outcome == "done", "the job's end", 30)


def test_a_restarted_server_is_compared_with_the_store(store: Store) -> None:
    """Its file may lack the last second: jobs that were accepted in it are brought back."""
    with running_redis() as server, control_client(server.url) as client:
        shop = Workshop(ShardQueue(client), store)
        known, lost = shop.submit(ROWS), shop.submit(ROWS)
        there = Chores(Settings(s3_prefix=PREFIX), shop.queue, store, CATALOG)
        assert there.remember() == []
        assert shop.queue.restored_in() == shop.queue.life()
        client.delete(shop.queue.key(f"job:{lost.id}"))
        assert there.remember() == []
        shop.queue.note_restored("the life before the restart")
        assert there.remember() == [lost.id]
        assert there.remember() == []
        assert shop.record(known.id).state == shop.record(lost.id).state == "run"


def test_one_job_whose_file_is_damaged_keeps_no_other_out(
    shop: Workshop, client: redis.Redis
) -> None:
    damaged, whole = shop.submit(ROWS), shop.submit(ROWS)
    shop.store.put(shop.layout(damaged).job, b"{}")
    client.flushall()

    assert Chores(Settings(s3_prefix=PREFIX), shop.queue, shop.store, CATALOG).remember() == [
        whole.id
    ]
    shop.queue.finish(whole.id, "failed")


def test_a_node_that_died_with_hundreds_of_leases_is_reaped_at_once(
    shop: Workshop, client: redis.Redis
) -> None:
    now = [1_000_000]
    queue = ShardQueue(client, clock=lambda: now[0])
    queue.submit(request_for(images=250, shard_images=1, unit_cost=1.0))
    for number in range(4):
        queue.claim("w", f"n{number}", "engine", 64, 1_000)
    now[0] += 1_001
    Chores(Settings(s3_prefix=PREFIX), queue, shop.store, CATALOG).reap()
    assert queue.leases() == []


def test_leases_end_also_while_a_step_hangs(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.submit(ROWS)
    go_on, asked = threading.Event(), threading.Event()

    def hangs(_: Looks) -> list[Any]:
        asked.set()
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(Looks, "actors", hangs)
    with scheduling(shop):
        try:
            assert asked.wait(30)
            shop.queue.claim("w", "n", job.recipe.engine_key, 1, 1_000)
            assert shop.record(job.id).units_in_flight == 1
            wait_until(lambda: not shop.record(job.id).units_in_flight, "the lease's end", 30)
        finally:
            go_on.set()
