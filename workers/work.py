"""Work: a claimed unit with its job, its rows and its images, ready to be rendered."""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobs.errors import LeaseLost
from jobs.job import Image, Job
from jobs.layout import JobLayout, Unit, layout_of
from jobs.recipe import Recipe
from jobs.records import LoadTimes, Picture, ShardTimes
from jobs.rounds import Accepted, read_accepted, unit_images
from jobs.shard_queue import ShardQueue
from jobs.spool import RowPages
from jobs.store import Store
from workers.duplicate import Duplicate
from workers.leases import Held
from workers.rendered import Rendered

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


@dataclass(frozen=True)
class RenderedShard:
    """A shard whose pictures are being encoded; `device_ms` is what the device spent on it."""

    pictures: list[Future[Picture]]
    times: ShardTimes
    device_ms: float
    #: Image -> the earlier picture that its own resembles.
    duplicates: Mapping[int, Duplicate] = field(default_factory=dict)


class RendersBatches(Protocol):
    """Whoever turns images into pixels; the loop around it need not know a neural net.

    `start` asks the device for a batch and `finish` waits for it. Both raise DeviceLost where the
    device is of no more use; an image that cannot be made is a Rendered without pixels.
    """

    #: Threads that encode what it makes.
    encoders: int
    #: Batches that may have been started when the next one is.
    ahead: int
    #: Milliseconds that loading took, and by stage: told once, with the first shard.
    load_ms: float
    load_times: LoadTimes

    @property
    def memory_bytes(self) -> int:
        """The most memory it has held: of its GPU, or of its process on a CPU."""

    def room(self, recipe: Recipe) -> int:
        """Images of this recipe in one batch."""

    def draw_ahead(self, recipe: Recipe, images: Sequence[Image]) -> None:
        """Prepare what can be prepared for images that come soon."""

    def start(self, recipe: Recipe, images: Sequence[Image]) -> Any:
        """Ask the device for a batch."""

    def finish(self, started: Any) -> list[Rendered]:
        """The images of a batch that was started, in its order."""


class WorkSource:
    """Reads what a lease stands for from the store; several threads may ask at once."""

    def __init__(self, store: Store, queue: ShardQueue, prefix: str) -> None:
        self._store = store
        self._queue = queue
        self._prefix = prefix
        self._jobs: OrderedDict[str, Accepted] = OrderedDict()
        self._pages = RowPages(store)
        self._lock = threading.Lock()

    def fetch(self, held: Held) -> Work:
        """The unit's rows and images; raises what the store raises."""
        started = time.monotonic()
        lease = held.lease
        accepted = self._job(lease.job_id)
        unit, images = unit_images(accepted, lease.unit, self._pages.rows, self._store)
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
        # Held while reading, so that the units of one claim read their job once.
        with self._lock:
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
