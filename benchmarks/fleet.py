"""The fleet that `benchmarks.scale` stands for, and jobs as its tenants would submit them."""

import hashlib
from collections.abc import Sequence

from jobs.queue_values import SubmitRequest
from jobs.shard_queue import ShardQueue

RENDERERS, TENANTS, ENGINES = 1_000, 200, 50


def digest(*words: object) -> str:
    """Sixteen letters that stand for what a real digest would."""
    return hashlib.sha256("|".join(map(str, words)).encode()).hexdigest()[:16]


def fill(
    queue: ShardQueue, engines: Sequence[str], jobs: int, *, images: int, shard_images: int
) -> list[str]:
    """Submit `jobs` equal jobs, spread over tenants and engines; their ids."""
    names = []
    for number in range(jobs):
        name = (digest("job", number) * 2)[:26]
        tenant = number % TENANTS
        queue.submit(
            SubmitRequest(
                job_id=name,
                tenant=f"tenant-{tenant}",
                # Each tenant uses some engines, and each engine is used by some tenants.
                engine_key=engines[(tenant * 7 + number // TENANTS) % len(engines)],
                images=images,
                shard_images=shard_images,
                spec_sha256=digest("spec", number) * 4,
                idempotency_key=f"key-{number}",
                unit_cost=0.1,
            )
        )
        names.append(name)
    return names
