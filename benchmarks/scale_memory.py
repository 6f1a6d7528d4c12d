"""Memory: what jobs, renderers and shards hold in Redis."""

import uuid
from typing import Any

import redis

from benchmarks.fleet import RENDERERS, digest, fill
from benchmarks.goals import Goal
from benchmarks.servers import running_redis, url_of
from benchmarks.simulated_pool import beat_of, simulated_recipes
from jobs.queue_values import DoneUnit, SubmitRequest
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue

PART = "memory"


def run(quick: bool) -> list[Goal]:
    """Bytes of Redis for every open job, with its leases, and for every shard of a huge one."""
    jobs, shards = (200, 8_000) if quick else (RENDERERS, 100_000)
    with running_redis() as port:
        client = control_client(url_of(port))
        queue = ShardQueue(client)
        engines = list(simulated_recipes())
        # Scripts, buffers and the first tables are there whatever is submitted.
        fill(queue, engines, 1, images=1_000, shard_images=100)
        empty = _held(client)
        fill(queue, engines, jobs + 1, images=100_000, shard_images=1_000)
        idle = (_held(client) - empty) / jobs
        leases = _lease_all(queue, engines)
        renderers = _of_renderers(client)
        active = (_held(client) - empty - renderers) / jobs
        bits = _bits(client, queue, shards)
    return [
        Goal(
            PART,
            "Redis memory of an active job",
            "bytes",
            active,
            most=2_048,
            how=f"{jobs} open jobs with idempotency keys, {leases} units leased; {idle:.0f} bytes "
            f"before that. Not in it: {renderers / RENDERERS:.0f} bytes for each of {RENDERERS:,} "
            "renderers (heartbeat, last claim), and the events' stream, of fixed size",
        ),
        Goal(
            PART,
            "Redis memory of a shard that is done",
            "bits",
            bits,
            most=1.0,
            how=f"{shards} shards of one job, booked in their order; as MEMORY USAGE tells, less a "
            "bitmap's head",
        ),
    ]


def _held(client: redis.Redis) -> int:
    """Bytes of all data, without the stream of events, which is cut at 100,000."""
    told: Any = client.info("memory")
    events: Any = client.memory_usage("{fewstep}:q1:events", samples=0)
    return int(told["used_memory_dataset"]) - int(events or 0)


def _of_renderers(client: redis.Redis) -> int:
    """Bytes of what renderers say of themselves, and of the replies kept for them."""
    found = 0
    for kind in ("renderer", "claimed"):
        names: Any = client.keys(f"{{fewstep}}:q1:{kind}:*")
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.memory_usage(name)
        found += sum(pipe.execute())
    return found


def _lease_all(queue: ShardQueue, engines: list[str]) -> int:
    """Every renderer beats and holds a unit, as long as there are some; how many are leased."""
    leased = 0
    for number in range(RENDERERS):
        engine = engines[number % len(engines)]
        name = f"renderer-{engine}-{number:06d}"
        queue.heartbeat(name, beat_of(name, engine, "rendering"), ttl_ms=600_000)
        leased += len(queue.claim(name, uuid.uuid4().hex, engine, 1, 600_000))
    return leased


def _bits(client: redis.Redis, queue: ShardQueue, shards: int) -> float:
    name = "huge"
    queue.submit(
        SubmitRequest(
            job_id=name,
            tenant="tenant-0",
            engine_key=digest("engine", 0),
            # One shard stays open: a job that is through has other rules.
            images=shards + 1,
            shard_images=1,
            spec_sha256=digest("huge"),
        ),
        restoring=True,
    )
    queue.restore(name, (DoneUnit(str(shard)) for shard in range(shards)))
    key = f"{{fewstep}}:q1:bits:{name}"
    client.set("head", b"")
    head: Any = client.memory_usage("head")
    held: Any = client.memory_usage(key)
    return float(held - head) * 8 / shards
