"""Changing the budget of a job: of one that goes on, and of one that a limit has stopped."""

import time
from collections.abc import Mapping
from typing import Any

from jobs.allowance import Allowance
from jobs.budget import Budget, spent
from jobs.control import read_budget, read_spent, write_budget, write_spent
from jobs.draft import check_objects
from jobs.errors import Conflict, InvalidInput
from jobs.job import Job
from jobs.keys import Quota
from jobs.layout import JobLayout
from jobs.recover import recover_job
from jobs.results import outcome_of
from jobs.rounds import rounds_of
from jobs.shard_queue import ShardQueue
from jobs.specs import dataset_id
from jobs.states import JobState
from jobs.store import Store
from jobs.submit import check_deadline


def change_budget(
    store: Store,
    queue: ShardQueue,
    layout: JobLayout,
    job: Job,
    queue_id: str,
    changed: Mapping[str, Any],
    *,
    quota: Quota | None = None,
    allowance: Allowance | None = None,
) -> Budget:
    """Give a job other limits (field of `Budget` -> value, None: no limit); its budget then.

    A job that a limit has stopped goes on where it stopped. May be repeated. Raises InvalidInput
    for fewer images than were let through, Conflict for a job that has ended otherwise, is being
    closed, was retried since, or would be stopped again at once.
    """
    if dataset_id(queue_id) != queue_id:
        raise Conflict("a retry has no budget", where=queue_id, remedy="cancel it to end it")
    before = read_budget(store, layout, job)
    budget = Budget(**{**dict(before.only()), **changed})
    if budget.deadline != before.deadline:
        check_deadline(budget, _now_ms())
    images = _checked_images(job, before, budget)
    # What is refused takes nothing of a quota.
    _check_goes_on(store, queue, layout, job, budget)
    if quota is not None and quota.images_a_day is not None and allowance is not None:
        more = images - before.images_of(job.images)
        if more:
            allowance.spend_images(job.tenant, f"{job.id}+{images}", more, quota.images_a_day)
    limits, failed = budget.limits(job.images, job.shard_images), job.failed_limit(images)
    state = queue.limit(job.id, images, limits, failed)
    if state in ("run", "pause"):
        # After the queue and before the answer, as in `steer`, and told again for the same reason.
        write_budget(store, layout, budget)
        queue.limit(job.id, images, limits, failed)
    elif state in ("closed", "unknown"):
        _reopen(store, queue, layout, job, budget, quota)
    else:
        raise _between(job)
    return budget


def _check_goes_on(
    store: Store, queue: ShardQueue, layout: JobLayout, job: Job, budget: Budget
) -> None:
    """Raise Conflict for a job that neither goes on nor may be let go on with this budget."""
    record = queue.job(job.id)
    if record is None or record.state == "closed":
        _checked_spent(store, queue, layout, job, budget)
    elif record.state not in ("run", "pause") or record.restoring:
        raise _between(job)


def _between(job: Job) -> Conflict:
    return Conflict(
        "the job is being closed, or read back from the store",
        where=job.id,
        remedy="try again in a moment",
    )


def _checked_images(job: Job, before: Budget, budget: Budget) -> int:
    images, through = budget.images_of(job.images), before.images_of(job.images)
    if images < through:
        raise InvalidInput(
            f"{through} images are let through already",
            where="max_images",
            remedy="it can be raised alone; cancel the job to end it now",
        )
    check_objects(job.output, images)
    return images


def _reopen(
    store: Store,
    queue: ShardQueue,
    layout: JobLayout,
    job: Job,
    budget: Budget,
    quota: Quota | None,
) -> None:
    """Let a job that a limit has stopped go on, from what the store holds of it."""
    device_ms = _checked_spent(store, queue, layout, job, budget)
    write_budget(store, layout, budget)
    write_spent(store, layout, device_ms)
    store.delete([layout.outcome])
    queue.forget(job.id)
    recover_job(store, queue, layout, job.id, quota)


def _checked_spent(
    store: Store, queue: ShardQueue, layout: JobLayout, job: Job, budget: Budget
) -> int:
    """What a job that has ended spent of devices, in milliseconds.

    Raises Conflict where no limit has stopped it, or this budget would at once.
    """
    ended = outcome_of(store, layout)
    # Waiting: this was cut short before, between its end's removal and the queue.
    if ended.state not in (JobState.STOPPED, JobState.WAITING):
        raise Conflict(
            f"the job is {ended.state}",
            where=job.id,
            remedy="submit the prompts again as a new job",
        )
    if rounds_of(store, layout):
        raise Conflict(
            "the job was retried since it stopped, which closes its own shards",
            where=job.id,
            remedy=f"`fewstep retry-failed {job.id} --unfinished` renders the rest",
        )
    record = queue.job(job.id)
    limits = budget.limits(job.images, job.shard_images)
    known = (read_spent(store, layout), ended.device_ms or 0, record.spent_ms if record else 0)
    again = spent(limits, max(known), _now_ms())
    if again is None and ended.done + ended.failed >= budget.images_of(job.images):
        again = "max_images"
    if again is not None:
        raise Conflict(
            f"the job would stop at once: {again} is reached", where=again, remedy="raise it too"
        )
    return max(known)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
