"""Refits beside loads: seconds from the scheduler's decision to the first unit of the new engine.

    python -m benchmarks.refit [--rounds 5]

One renderer of a whole stack (Redis, S3, Ray, API, scheduler) stands idle, and a job of another
engine comes: of the same base, which is a refit, or of the base in another dtype, which is a load.
Each for an engine that was never fused on this machine, and for one that the node keeps.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import bare
from fewstep.local import Stack
from jobs.client import Client
from jobs.job import JobRequest
from jobs.recipe import RecipeRequest, StyleWeight
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue

#: A job may take so long to be claimed, or to end, in seconds.
PATIENCE_S = 300.0
POLL_S = 0.005
#: What the scheduler decided, by the kind of change.
WORDS = {"refit": "refitted", "load": "drained"}


@dataclass(frozen=True)
class Machine:
    """The stack as whoever measures sees it."""

    client: Client
    queue: ShardQueue

    def change(self, kind: str, request: RecipeRequest) -> float:
        """Submit a job of an engine that is not there, wait for its end; seconds from decision to
        claim. Raises RuntimeError where something else was decided than `kind`."""
        since_ms = time.time_ns() // 1_000_000
        job = self.client.submit(JobRequest(recipe=request, seed=1), ["a red star"]).id
        _wait(lambda: self._claimed(job))
        claimed = time.time()
        _wait(lambda: self.client.job(job).state == "done")
        told = [one for one in self.queue.pool_changes(9) if one.at_ms >= since_ms]
        first = min(told, key=lambda one: one.at_ms)
        if first.what != WORDS[kind]:
            raise RuntimeError(f"{kind} was expected, and the renderer was {first.what}")
        return claimed - first.at_ms / 1e3

    def _claimed(self, job: str) -> bool:
        record = self.queue.job(job)
        return record is not None and record.cursor > 0


def _wait(met: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not met():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing has come of it in {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)


@contextmanager
def running_machine() -> Iterator[Machine]:
    """A stack with one renderer and a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="fewstep-bench-") as name:
        os.environ["FEWSTEP_CACHE"] = f"{name}/cache"
        with (
            Stack.start(Path(name) / "home", 1, print, private=True) as stack,
            Client(stack.settings.api_url) as client,
            control_client(stack.settings.redis_url.get_secret_value()) as redis,
        ):
            yield Machine(client, ShardQueue(redis))


def measured(machine: Machine, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by kind and by whether the engine was new to the node."""
    plain = RecipeRequest(steps=1)
    found: dict[str, list[float]] = {}
    first = machine.client.submit(JobRequest(recipe=plain, seed=1), ["a red star"]).id
    _wait(lambda: machine.client.job(first).state == "done")
    for number in range(rounds):
        style = (StyleWeight(name="outline", weight=0.5 + number / 100),)
        for kind, dtype in (("refit", "float32"), ("load", "bfloat16")):
            new = RecipeRequest.model_validate({"steps": 1, "styles": style, "dtype": dtype})
            found.setdefault(f"{kind}, never fused here", []).append(machine.change(kind, new))
            found.setdefault(f"{kind}, kept by the node", []).append(machine.change(kind, plain))
    return found


def main(words: list[str]) -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refit")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(words).rounds
    with running_machine() as machine:
        found = measured(machine, rounds)
    print(bare())
    for name, seconds in found.items():
        each = " ".join(f"{one:.2f}" for one in seconds)
        print(f"{name}: median {statistics.median(seconds):.2f} s of {rounds} ({each})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
