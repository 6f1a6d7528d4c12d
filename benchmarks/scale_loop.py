"""Loop: what of a core the scheduler's own loop takes, with 1,000 renderers and as many jobs."""

import statistics
import time
from collections.abc import Callable

from benchmarks.fleet import RENDERERS, fill
from benchmarks.goals import Goal
from benchmarks.servers import running_redis, url_of
from benchmarks.simulated_pool import SimulatedPool, beat_of, simulated_recipes, simulated_scheduler
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue
from scheduler.loop import PERIOD_S

PART = "loop"


def run(quick: bool) -> list[Goal]:
    """Step the real loop as often as it would by itself, and count its thread's processor time."""
    renderers, jobs, rounds = (100, 50, 4) if quick else (RENDERERS, 1_000, 40)
    with running_redis() as port:
        client = control_client(url_of(port))
        queue = ShardQueue(client)
        engines = list(simulated_recipes())
        fill(queue, engines, jobs, images=100_000, shard_images=1_000)
        pool = SimulatedPool(renderers, lambda name, engine: None, lambda name: None)
        scheduler = simulated_scheduler(queue, pool)
        # The first steps fill the pool; then renderers say that they render.
        for _ in range(3):
            scheduler.step()
        for number, actor in enumerate(pool.actors()):
            queue.heartbeat(actor.name, beat_of(actor.name, actor.engine_key, "rendering"))
            queue.claim(actor.name, f"n{number}", actor.engine_key, 1, 600_000)

        def step() -> None:
            # Its own thread does that, as often.
            queue.reap()
            scheduler.step()

        steps = [_step(step) for _ in range(rounds)]
    share = statistics.mean(steps) / PERIOD_S
    return [
        Goal(
            PART,
            f"the scheduler's loop, {renderers:,} renderers",
            "% of a core",
            share * 100,
            most=5.0,
            how=f"{jobs} open jobs; {statistics.median(steps) * 1e3:.0f} ms of processor a step, "
            f"one each {PERIOD_S} s; real loop, policy and Redis, but no Ray",
            seen={"cpu_s": steps},
        )
    ]


def _step(step: Callable[[], object]) -> float:
    started = time.thread_time()
    step()
    return time.thread_time() - started
