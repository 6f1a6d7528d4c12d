"""Rebuilding the queue from the store, after Redis has lost its memory."""

import logging
from collections.abc import Iterator
from typing import Literal

from pydantic import ValidationError

from jobs.control import Course, read_budget, read_course, read_rank, read_spent
from jobs.errors import BadConfiguration, DamagedJob, InvalidInput, NotFound
from jobs.job import Job
from jobs.key_store import KeyStore
from jobs.keys import Quota
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.queue_values import DoneUnit, QueueJob
from jobs.rounds import Accepted, order_of_accepted, read_accepted, rounds_of
from jobs.shard_queue import ShardQueue
from jobs.specs import job_folders, read_job
from jobs.store import Store

log = logging.getLogger(__name__)


def recover_jobs(store: Store, queue: ShardQueue, prefix: str) -> Iterator[str]:
    """Tell the queue of every job in the store that has not ended and that it does not know.

    Units with a manifest count as done; the others are rendered, those that were in flight once
    more, onto the same names. Yields each job's id as it is back. May be repeated, and may run
    while the queue is in use. Asks the store three times for each job, and for the manifests of
    those that have not ended.
    """
    keys, quotas = KeyStore(store, prefix), dict[str, Quota | None]()
    for tenant, job_id in job_folders(store, f"{prefix}/"):
        layout = JobLayout(prefix=prefix, tenant=tenant, job_id=job_id)
        if store.head(layout.job) is None:
            continue
        if tenant not in quotas:
            quotas[tenant] = _quota(keys, tenant)
        try:
            yield from _recover_job(store, queue, layout, quotas[tenant])
        except (DamagedJob, InvalidInput, NotFound) as error:
            # One job whose files are broken must not keep the others out.
            log.error("not_restored job=%s error=%s", job_id, error)


def _quota(keys: KeyStore, tenant: str) -> Quota | None:
    """What is granted to a tenant; the defaults, where that does not read: its jobs come first."""
    try:
        return keys.quota(tenant)
    except BadConfiguration as error:
        log.error("quota_not_read tenant=%s error=%s", tenant, error)
        return None


def _recover_job(
    store: Store, queue: ShardQueue, layout: JobLayout, quota: Quota | None
) -> Iterator[str]:
    """The job, or, where it has ended, the retry of it that has not."""
    if not _ended(store, layout):
        if recover_job(store, queue, layout, layout.job_id, quota):
            yield layout.job_id
        return
    for again in rounds_of(store, layout):
        over = store.head(layout.round_ended(again.number)) is not None
        # A drop that was cut short goes on when it is asked for again.
        if not over and again.renders and recover_job(store, queue, layout, again.id, quota):
            yield again.id


def _ended(store: Store, layout: JobLayout) -> bool:
    return any(store.head(key) is not None for key in (layout.success, layout.outcome))


def recover_job(
    store: Store, queue: ShardQueue, layout: JobLayout, queue_id: str, quota: Quota | None
) -> bool:
    """Tell the queue of a job, or round, that has not ended; whether it did not know it.

    Raises DamagedJob, InvalidInput or NotFound for one whose files are broken.
    """
    known, course = queue.job(queue_id), read_course(store, layout, queue_id)
    if course.state == "refused":
        return False
    if course.state == "cancel":
        return _cancelled(store, queue, layout, queue_id, course, quota)
    if known is None or known.restoring:
        accepted = read_accepted(store, layout.prefix, layout.tenant, queue_id)
        # Before the queue holds it: whatever does not read must not leave it held.
        done = list(_done_units(store, accepted, layout))
        budget = read_budget(store, layout, accepted.job)
        before_ms = max(sum(one.device_ms for one in done), read_spent(store, layout))
        order = order_of_accepted(accepted, quota, budget, before_ms)
        queue.submit(order, restoring=True)
        later = read_rank(store, layout, queue_id)
        if later is not None:
            queue.set_priority(queue_id, later)
        then: Literal["run", "pause"] = "pause" if course.state == "pause" else "run"
        queue.restore(queue_id, done, then=then)
        return True
    _remind(store, queue, layout, known, course)
    if known.job_id == layout.job_id:
        _remind_of_budget(store, queue, layout, known)
    return False


def _remind(
    store: Store, queue: ShardQueue, layout: JobLayout, known: QueueJob, course: Course
) -> None:
    """Tell a job that a queue which went back in time still knows what it was told since."""
    queue_id, rank = known.job_id, read_rank(store, layout, known.job_id)
    if rank is not None and rank != known.priority:
        queue.set_priority(queue_id, rank)
    while course.state in ("run", "pause") and known.state in ("run", "pause"):
        if course.state != known.state:
            queue.state(queue_id, "pause" if course.state == "pause" else "run")
        # Somebody may have told it something else meanwhile.
        last, course = course, read_course(store, layout, queue_id)
        if course == last:
            return


def _remind_of_budget(store: Store, queue: ShardQueue, layout: JobLayout, known: QueueJob) -> None:
    job = read_job(store, layout.prefix, layout.tenant, known.job_id)
    budget = read_budget(store, layout, job)
    limits = budget.limits(job.images, job.shard_images)
    images = budget.images_of(job.images)
    if (images, limits.words) != (known.images, known.limits.words):
        queue.limit(known.job_id, images, limits, job.failed_limit(images))


def _cancelled(
    store: Store,
    queue: ShardQueue,
    layout: JobLayout,
    queue_id: str,
    course: Course,
    quota: Quota | None,
) -> bool:
    """Have a cancelled job ended; whether the queue did not know it. No unit of it is handed out:
    it is cancelled while it is held for its restoring, and nothing is restored of it."""
    known = queue.job(queue_id)
    new = known is None or known.restoring
    if new:
        accepted = read_accepted(store, layout.prefix, layout.tenant, queue_id)
        # With the quota, though nothing is shared out: what it says holds for the whole tenant.
        queue.submit(order_of_accepted(accepted, quota), restoring=True)
    # Also where the queue went back to before it was told.
    queue.state(queue_id, "cancel", discard=course.discard)
    if new:
        queue.restore(queue_id, [])
    return new


def _done_units(store: Store, accepted: Accepted, layout: JobLayout) -> Iterator[DoneUnit]:
    again, own = accepted.again, accepted.job.shards
    for found in store.list(layout.shards):
        if not found.key.endswith("_stats.json"):
            continue
        manifest = _manifest(store, accepted.job, found.key)
        if manifest is None:
            continue
        if again is None and manifest.shard < own:
            yield DoneUnit(manifest.unit, manifest.failed, round(manifest.times.device_ms))
        elif again is not None and again.holds(manifest):
            yield DoneUnit(again.queue_unit(manifest), manifest.failed)


def _manifest(store: Store, job: Job, key: str) -> Manifest | None:
    """A manifest of the job; None where it is none, and was removed.

    It follows from its tar: whoever claims the unit adopts that and writes the manifest anew.
    """
    try:
        found = Manifest.model_validate_json(store.get(key))
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
    else:
        own = found.stop <= job.images or found.shard >= job.shards
        if found.job == job.id and own and 0 <= found.first < found.stop:
            return found
        fault = "it is of another job"
    log.error("manifest_removed key=%s error=%s", key, fault)
    store.delete([key])
    return None
