"""Finishing jobs: the dataset's last files, then the queue's last word."""

import logging

from redis import RedisError

from jobs.catalog import Catalog
from jobs.discard import discard_job
from jobs.errors import DamagedJob, FewstepError, NotFound
from jobs.estimate import note_timing
from jobs.finish import Facts, Finished, facts_of, finish_job
from jobs.given_up import commit_given_up
from jobs.job import Job
from jobs.layout import JobLayout, layout_of
from jobs.orphans import adopt_orphans
from jobs.queue_values import Outcome, QueueJob
from jobs.results import Ended, outcome_of, round_outcome, write_outcome
from jobs.rounds import Accepted, read_accepted, rounds_of
from jobs.shard_queue import ShardQueue
from jobs.specs import dataset_id, round_number
from jobs.states import JobState
from jobs.store import Store
from jobs.strays import remove_strays
from scheduler.finish_round import (
    OUTCOMES,
    TOO_MANY_FAILED,
    close_round,
    finish_round,
    spent_reason,
)
from scheduler.limits import limit_of, limit_reason

log = logging.getLogger(__name__)

_CANCELLED = "cancelled by its user"
#: What the queue may call a job of this state that is done by now.
_READY: dict[str, Outcome] = {"cancel": "cancelled", "stop": "failed"}


def finish_ready(queue: ShardQueue, store: Store, catalog: Catalog, prefix: str) -> int:
    """Finish every job that is accounted for, cancelled or stopped; how many.

    A job whose finishing fails stays where it is and is tried again in the next round.
    """
    finished = 0
    for job_id in queue.finishing():
        try:
            finished += _finish(queue, store, catalog, prefix, job_id)
        except (FewstepError, RedisError) as error:
            log.error("finish_failed job=%s error=%s", job_id, error)
        except Exception:
            # One job whose files are broken in a way nobody thought of must not hold up the rest.
            log.exception("finish_broke job=%s", job_id)
    return finished


def _finish(queue: ShardQueue, store: Store, catalog: Catalog, prefix: str, job_id: str) -> bool:
    record = queue.job(job_id)
    if record is None:
        return False
    layout = JobLayout(prefix=prefix, tenant=record.tenant, job_id=dataset_id(job_id))
    try:
        accepted = read_accepted(store, prefix, record.tenant, job_id)
    except (NotFound, DamagedJob) as error:
        _close(queue, store, layout, record, "failed", str(error), None)
        return True
    layout = layout_of(accepted.job, prefix)
    if _ended_before(queue, store, layout, accepted, record):
        return True
    if record.state == "cancel" and record.discard and accepted.again is None:
        _delete(queue, store, layout, record)
        return True
    commit_given_up(store, accepted, layout, queue.pieces(job_id).dead, record.max_attempts)
    if record.state in ("cancel", "stop"):
        adopt_orphans(store, queue, accepted, layout, job_id)
    facts = facts_of(accepted.job, catalog)
    if accepted.again is not None:
        finish_round(queue, store, layout, facts, accepted.job, accepted.again, record)
    else:
        _finish_job(queue, store, layout, facts, accepted.job, record)
    return True


def _ended_before(
    queue: ShardQueue, store: Store, layout: JobLayout, accepted: Accepted, record: QueueJob
) -> bool:
    """Close what only the queue still holds open, with the store's word; whether it was so.

    A job that was retried, or a round with a word on its end, had all its files when whoever
    finished it died: to write them again would undo what later rounds have made since.
    """
    job = accepted.job
    if accepted.again is not None:
        last = round_outcome(store, layout, accepted.again.number)
        if last.state == JobState.WAITING:
            return False
        own = range(accepted.again.first_shard, accepted.again.stop_shard)
        remove_strays(store, layout, job, own)
        close_round(queue, store, accepted.again, last)
        return True
    rounds = rounds_of(store, layout)
    if not rounds:
        return False
    remove_strays(store, layout, job, range(job.shards))
    last = outcome_of(store, layout)
    outcome, counts = OUTCOMES.get(last.state, "failed"), (last.done, last.failed)
    ready = _READY.get(record.state, outcome) if outcome == "done" else outcome
    if queue.finish(record.job_id, ready, last.reason, counts=counts) == "not_ready":
        # An end that its extension came to: the queue calls any job failed.
        queue.finish(record.job_id, "failed", last.reason, counts=counts)
    # A round may have completed what was cancelled or stopped.
    queue.amend(record.job_id, rounds[-1].number, outcome, last.reason, counts)
    log.info("closed job=%s outcome=%s", record.job_id, outcome)
    return True


def _finish_job(
    queue: ShardQueue, store: Store, layout: JobLayout, facts: Facts, job: Job, record: QueueJob
) -> None:
    outcome, reason, result = _dataset(store, layout, job, record, facts)
    if outcome != "done":
        _close(queue, store, layout, record, outcome, reason, result)
        return
    # Near-duplicates of other shards count as failed from now on: no renderer knew of them.
    answer = queue.finish(job.id, "done", counts=(result.ok, result.failed))
    # Not where another scheduler was quicker: a job counts once.
    if answer == "ok" and result.timing is not None:
        note_timing(queue, job.recipe, result.timing, alike=not job.rows.recipes)
    log.info("finished job=%s images=%s failed=%s", job.id, result.images, result.failed)


def _dataset(
    store: Store, layout: JobLayout, job: Job, record: QueueJob, facts: Facts
) -> tuple[Outcome, str, Finished]:
    """Write the dataset's last files; how the job ended, why, and what there is of it."""
    if record.state == "cancel":
        return "cancelled", _CANCELLED, finish_job(store, layout, job, facts, ended=_CANCELLED)
    if record.state == "stop" and not record.limit:
        result = finish_job(store, layout, job, facts, ended=TOO_MANY_FAILED)
        return "failed", spent_reason(job, result, record.max_failed), result
    result = finish_job(store, layout, job, facts)
    if result.complete:
        return "done", "", result
    if limit := limit_of(job, record):
        result = finish_job(store, layout, job, facts, ended=f"it is at its limit, {limit}")
        return "stopped", limit_reason(job, record, result), result
    # Somebody removed manifests from the store: this is not ours to guess about.
    missing = ", ".join(f"{first}-{stop - 1}" for first, stop in result.missing[:20])
    reason = f"these images are in no shard: {missing}"
    return "failed", reason, finish_job(store, layout, job, facts, ended=reason)


def _delete(queue: ShardQueue, store: Store, layout: JobLayout, record: QueueJob) -> None:
    """Delete what was done of a cancelled job. First its end is written down: it must not come
    back where this is cut short."""
    reason = f"{_CANCELLED}, and what was done was deleted"
    ended = Ended(
        state=JobState.CANCELLED, reason=reason, started_ms=record.first_claim_ms, deleted=True
    )
    write_outcome(store, layout, ended)
    discard_job(store, layout)
    queue.finish(record.job_id, "cancelled", reason, counts=(0, 0))
    log.info("deleted job=%s", record.job_id)


def _close(
    queue: ShardQueue,
    store: Store,
    layout: JobLayout,
    record: QueueJob,
    outcome: Outcome,
    reason: str,
    result: Finished | None,
) -> None:
    """The last word on a job that did not become a whole dataset: the store's, then the queue's."""
    done = result.ok if result else record.done_images
    failed = result.failed if result else record.failed_images + record.dead_images
    ended = Ended(
        state=JobState(outcome),
        reason=reason,
        done=done,
        failed=failed,
        started_ms=record.first_claim_ms,
        finished_ms=record.finished_ms or record.last_progress_ms,
        device_ms=record.spent_ms,
    )
    write_outcome(store, layout, ended, round_number(record.job_id))
    queue.finish(record.job_id, outcome, reason, counts=(done, failed))
    log.info("ended job=%s outcome=%s reason=%s", record.job_id, outcome, reason)
