"""Submit: a template that stands for 100 million images, into a real store and queue."""

import statistics
import time
import tracemalloc
import uuid
from collections.abc import Callable

from benchmarks.goals import Goal
from benchmarks.servers import running_servers
from jobs.catalog import load_catalog
from jobs.job import JobRequest
from jobs.redis_client import control_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.submit import submit_job
from jobs.templates.expansion import TemplateRequest
from jobs.templates.template import Template

PART = "submit"
SMALL, HUGE = 10_000, 100_000_000


def run(quick: bool) -> list[Goal]:
    """Seconds of a submission from the template's text on, and its memory beside a small job's."""
    rounds = 2 if quick else 7
    with running_servers() as (settings, store):
        queue = ShardQueue(control_client(settings.redis_url.get_secret_value()))

        def submit(images: int) -> None:
            _submit(settings, store, queue, images)

        # Connections, scripts and the catalog are there at the second.
        submit(SMALL)
        took = [_seconds(submit, HUGE) for _ in range(rounds)]
        small, huge = _peak(submit, SMALL), _peak(submit, HUGE)
    return [
        Goal(
            PART,
            "submit of a template of 100,000,000 images",
            "s",
            statistics.median(took),
            most=1.0,
            how=f"{rounds} times, {max(took):.3f} s at most; four lists of 100 words; real store, "
            "real Redis, without HTTP",
            seen={"seconds": took},
        ),
        Goal(
            PART,
            "its memory beside that of 10,000 images",
            "times",
            huge / small,
            most=1.1,
            how=f"most held at once by Python: {huge / 1e6:.2f} and {small / 1e6:.2f} MB",
        ),
    ]


def _submit(settings: Settings, store: Store, queue: ShardQueue, images: int) -> None:
    lists = {f"list{place}": tuple(f"word{place}-{n}" for n in range(100)) for place in range(4)}
    text = ", ".join(f"__{name}__" for name in lists)
    asked = TemplateRequest(template=text, lists=lists, count=images)
    done = submit_job(
        store,
        queue,
        load_catalog(),
        prefix=settings.s3_prefix,
        tenant="tenant-0",
        request=JobRequest(),
        rows=Template.of(asked),
        idempotency_key=uuid.uuid4().hex,
        now_ms=round(time.time() * 1e3),
    )
    if not done.created or done.images != images:
        raise RuntimeError(f"{images} images were asked for: {done}")


def _seconds(do: Callable[[int], None], images: int) -> float:
    started = time.perf_counter()
    do(images)
    return time.perf_counter() - started


def _peak(do: Callable[[int], None], images: int) -> int:
    tracemalloc.start()
    try:
        do(images)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
