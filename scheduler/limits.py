"""Limits: jobs that have spent their budget are stopped, and why is told in words."""

import logging
from collections.abc import Iterable

from jobs.budget import OPTIONS, moment, spent
from jobs.finish import Finished
from jobs.job import Job
from jobs.limits import Limit
from jobs.queue_values import QueueJob
from jobs.shard_queue import ShardQueue

log = logging.getLogger(__name__)


def within_limits(queue: ShardQueue, jobs: Iterable[QueueJob], now_ms: int) -> list[QueueJob]:
    """The jobs that go on; those at a limit are stopped. `now_ms`: since 1970 (UTC)."""
    found = []
    for job in jobs:
        # Once more as it is now: its limit may have been raised since all jobs were read.
        limit = _limit(job, now_ms) and _limit(queue.job(job.job_id) or job, now_ms)
        if limit is None:
            found.append(job)
        elif queue.stop(job.job_id, limit) == "stop":
            log.info("stopped job=%s limit=%s", job.job_id, limit)
    return found


def _limit(job: QueueJob, now_ms: int) -> Limit | None:
    """The limit that a job is at which goes on so far."""
    if job.state not in ("run", "pause") or job.restoring:
        return None
    return spent(job.limits, job.spent_ms, now_ms)


def limit_of(job: Job, record: QueueJob) -> str:
    """The limit that ended a job; "" where none did."""
    return "max_images" if record.state == "fin" and record.images < job.images else record.limit


def limit_reason(job: Job, record: QueueJob, result: Finished) -> str:
    """Why a job ended at a limit: which, what was spent, what is missing, and how to go on."""
    limit = limit_of(job, record)
    seconds = record.spent_ms / 1000
    if limit == "max_images":
        reached = f"{record.images} images, its max_images"
    elif limit == "deadline":
        reached = f"its deadline, {moment(record.limits.deadline_ms or 0):%Y-%m-%d %H:%M:%S} UTC"
    else:
        allowed = (record.limits.device_ms or 0) / 1000
        reached = f"{seconds:.1f} device-seconds of {allowed:g}, its max_device_seconds"
    left = job.images - result.ok - result.failed
    return (
        f"stopped at {reached}: {result.ok} of {job.images} images were made in {seconds:.1f} "
        f"device-seconds, {result.failed} failed, {left} were not rendered. "
        f"`fewstep budget {job.id} {OPTIONS[limit]} ...` raises it, and the job goes on where it "
        "stopped"
    )
