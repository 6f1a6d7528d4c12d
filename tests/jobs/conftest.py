"""Fixtures of the queue's tests: a Redis of our own, a queue on it, and a clock that tests turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis

from jobs.queue_values import Lease, SubmitRequest
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue
from tests.servers import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]


@dataclass
class Clock:
    """Milliseconds that only a test moves."""

    now: int = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now

    def forward(self, ms: int) -> None:
        """Let `ms` pass (negative: the server's clock is set back)."""
        self.now += ms


Submit = Callable[..., str]
Claim = Callable[..., list[Lease]]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """The control client that services use, on an empty Redis."""
    with control_client(redis_url) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    """The queue's clock."""
    return Clock()


@pytest.fixture
def queue(client: redis.Redis, clock: Clock) -> ShardQueue:
    """A queue on an empty Redis, by the test's clock."""
    return ShardQueue(client, clock=clock)


@pytest.fixture
def submit(queue: ShardQueue) -> Submit:
    """Submit a job of 25 images in shards of 10, or as the test says; its id."""

    def submit(job_id: str = "job", **settings: object) -> str:
        return queue.submit(request_for(job_id, **settings)).job_id

    return submit


@pytest.fixture
def claim(queue: ShardQueue) -> Claim:
    """Claim with a nonce of its own."""
    nonces = iter(range(1_000_000))

    def claim(want: int = 1, worker: str = "w", lease_ms: int = 60_000) -> list[Lease]:
        return queue.claim(worker, f"n{next(nonces)}", "engine", want, lease_ms)

    return claim


def request_for(job_id: str = "job", **settings: object) -> SubmitRequest:
    """A small valid request."""
    known: dict[str, object] = {
        "tenant": "ann",
        "engine_key": "engine",
        "images": 25,
        "shard_images": 10,
        "spec_sha256": f"sha-of-{job_id}",
    }
    return SubmitRequest(job_id=job_id, **(known | settings))  # type: ignore[arg-type]
