"""Faults struck into the stack while it renders: processes killed, the store frozen."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from jobs.errors import Unreachable
from jobs.job import Job
from jobs.layout import parse_unit
from jobs.shard_queue import ShardQueue


class Poison:
    """Kills whichever renderer begins a unit with one of some images, as a bad row might."""

    def __init__(self, queue: ShardQueue, job: Job, images: frozenset[int]) -> None:
        self._queue = queue
        self._job = job
        self._images = images
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poison")
        #: Processes struck so far; one that is dead may still hold its unit for a while.
        self._struck: set[int] = set()

    @property
    def killed(self) -> int:
        """How many processes it has killed."""
        return len(self._struck)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Kill inside the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            try:
                self._look()
            except Unreachable:
                continue

    def _look(self) -> None:
        pids = {one.worker: int(one.info["pid"]) for one in self._queue.renderers()}
        due = {
            pids[lease.worker]
            for lease in self._queue.leases()
            if lease.worker in pids
            and lease.job_id == self._job.id
            # Those that it has not begun kill nobody.
            and lease.progress is not None
            and self._covers(lease.unit)
        }
        for pid in due - self._struck:
            kill(pid)
            self._struck.add(pid)

    def _covers(self, name: str) -> bool:
        unit = parse_unit(name, self._job.shard_images, self._job.images)
        return not self._images.isdisjoint(unit.indexes)


def kill(pid: int) -> None:
    """SIGKILL, unless it is gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def freeze(pid: int, seconds: float) -> None:
    """A process that answers nobody for so long."""
    process = psutil.Process(pid)
    process.suspend()
    threading.Event().wait(seconds)
    process.resume()
