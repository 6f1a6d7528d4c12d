"""Work: a claimed unit with its job, its rows and its images, ready to be rendered."""

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from jobs.errors import LeaseLost
from jobs.job import Image, Job
from jobs.layout import JobLayout, Unit, layout_of
from jobs.records import Picture, ShardTimes
from jobs.rounds import Accepted, read_accepted, unit_images
from jobs.shard_queue import ShardQueue
from jobs.spool import fetch_rows
from jobs.store import Store
from workers.leases import Held

#: Jobs whose specification is remembered.
KEPT_JOBS = 64


@dataclass(frozen=True)
class Work:
    """A unit on its way through a renderer."""

    held: Held
    job: Job
    layout: JobLayout
    unit: Unit
    images: list[Image]
    #: When it was claimed, on the monotonic clock, and what reading its rows took.
    claimed_at: float
    fetch_ms: float


#: Asked between batches with the index of the first unfinished image: False stops the shard.
StillOurs = Callable[[Work, int], bool]


class Paused(Exception):
    """The job was paused between two batches: give the shard back."""


@dataclass(frozen=True)
class RenderedShard:
    """A shard whose pictures are being encoded; `device_ms` is what the device spent on it."""

    pictures: list[Future[Picture]]
    times: ShardTimes
    device_ms: float


class RendersShards(Protocol):
    """Whoever turns work into pictures; the loop around it need not know a neural net."""

    def render(self, work: Work, still_ours: StillOurs) -> RenderedShard:
        """Every image of `work`; raises LeaseLost, Paused or DeviceLost."""


class WorkSource:
    """Reads what a lease stands for from the store; not for use by several threads at once."""

    def __init__(self, store: Store, queue: ShardQueue, prefix: str) -> None:
        self._store = store
        self._queue = queue
        self._prefix = prefix
        self._jobs: OrderedDict[str, Accepted] = OrderedDict()

    def fetch(self, held: Held) -> Work:
        """The unit's rows and images; raises what the store raises."""
        started = time.monotonic()
        lease = held.lease
        accepted = self._job(lease.job_id)
        rows = partial(fetch_rows, self._store)
        unit, images = unit_images(accepted, lease.unit, rows, self._store)
        return Work(
            held=held,
            job=accepted.job,
            layout=layout_of(accepted.job, self._prefix).for_unit(unit),
            unit=unit,
            images=images,
            claimed_at=started,
            fetch_ms=(time.monotonic() - started) * 1e3,
        )

    def _job(self, job_id: str) -> Accepted:
        job = self._jobs.get(job_id)
        if job is None:
            record = self._queue.job(job_id)
            if record is None:
                raise LeaseLost("the queue forgot the job", where=job_id)
            job = read_accepted(self._store, self._prefix, record.tenant, job_id)
            self._jobs[job_id] = job
            if len(self._jobs) > KEPT_JOBS:
                self._jobs.popitem(last=False)
        return job
