"""Finishing a later round: the dataset's last files anew, and what has become of its job."""

import logging

from jobs.discard import discard_round, discard_rows
from jobs.finish import Facts, Finished, finish_job
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.queue_values import Outcome, QueueJob
from jobs.results import Ended, outcome_of, write_outcome
from jobs.rounds import Round, rounds_of
from jobs.shard_queue import ShardQueue
from jobs.states import JobState
from jobs.store import Store

log = logging.getLogger(__name__)

TOO_MANY_FAILED = "too many images failed"
#: How the store says it ended -> what the queue is told; any other is "failed".
OUTCOMES: dict[JobState, Outcome] = {
    JobState.DONE: "done",
    JobState.CANCELLED: "cancelled",
    JobState.STOPPED: "stopped",
}
#: Ends for which images without a picture are no reason.
_BY_WISH = (JobState.CANCELLED, JobState.STOPPED)
#: Errors that the reason of a stopped job names, the commonest first.
_ERRORS_TOLD = 3
#: State of a round in the queue that was ended early -> how it ended.
_ENDS: dict[str, Outcome] = {"cancel": "cancelled", "stop": "failed"}


def finish_round(
    queue: ShardQueue,
    store: Store,
    layout: JobLayout,
    facts: Facts,
    job: Job,
    again: Round,
    record: QueueJob,
) -> None:
    """Write the dataset's last files with what the round made, and close it.

    A job whose images are all accounted for by now, and few enough of them failed, is done,
    however it had ended; one of whose extension images are left out is not any more. May be
    repeated.
    """
    if record.state == "cancel" and record.discard:
        discard_round(store, layout, again)
        if again.block:
            _withdraw(queue, store, layout, again, record)
            return
    before = _before(outcome_of(store, layout), again, record)
    ended = "" if before.state == JobState.DONE else before.reason or before.state
    later = [one for one in rounds_of(store, layout) if one.number <= again.number]
    result = finish_job(store, layout, job, facts, ended=ended, later=later)
    _amend(queue, store, layout, job, again, before, result)
    outcome = _ENDS.get(record.state, "done")
    done, failed = result.last
    last = Ended(
        state=JobState(outcome),
        reason=TOO_MANY_FAILED if outcome == "failed" else "",
        done=done,
        failed=failed,
        started_ms=record.first_claim_ms,
        finished_ms=record.last_progress_ms,
    )
    write_outcome(store, layout, last, again.number)
    close_round(queue, store, again, last)
    log.info(
        "round_ended job=%s outcome=%s made=%s failed=%s",
        record.job_id,
        outcome,
        done,
        failed,
    )


def close_round(queue: ShardQueue, store: Store, again: Round, last: Ended) -> None:
    """The queue's last word on a round whose end the store knows. May be repeated."""
    counts = (last.done, last.failed)
    queue.finish(again.id, OUTCOMES.get(last.state, "failed"), last.reason, counts=counts)
    store.delete_prefix(again.pages)


def _withdraw(
    queue: ShardQueue, store: Store, layout: JobLayout, again: Round, record: QueueJob
) -> None:
    """Close an extension of which nothing is kept: the dataset is what it was before."""
    reason = "cancelled by its user, and what was done was deleted"
    last = Ended(
        state=JobState.CANCELLED, reason=reason, started_ms=record.first_claim_ms, deleted=True
    )
    write_outcome(store, layout, last, again.number)
    close_round(queue, store, again, last)
    discard_rows(store, again)
    log.info("round_withdrawn job=%s", record.job_id)


def _before(known: Ended, again: Round, record: QueueJob) -> Ended:
    """How the job stands where the round leaves images out."""
    if known.state != JobState.DONE or not again.block or record.state not in _ENDS:
        return known
    how = "was cancelled" if record.state == "cancel" else f"was stopped: {TOO_MANY_FAILED}"
    reason = (
        f"its extension {again.id} {how}; `fewstep retry-failed {again.job} --unfinished` renders "
        "what is missing"
    )
    return known.model_copy(update={"state": JobState(_ENDS[record.state]), "reason": reason})


def spent_reason(job: Job, result: Finished, limit: int | None) -> str:
    """Why a job was stopped by its error budget of `limit` images, and what to do about it."""
    errors = "; ".join(
        f"{count} x {error[:120]}" for error, count in list(result.errors.items())[:_ERRORS_TOLD]
    )
    return (
        f"{result.failed} of {result.images} images failed, more than the {limit} "
        f"that max_failed_rows allows ({errors}). Mend the cause, then "
        f"`fewstep retry-failed {job.id}`, or submit again with a higher max_failed_rows"
    )


def _still_failed(job: Job, result: Finished) -> str:
    limit = job.failed_limit(result.images)
    if limit is not None and result.failed > limit:
        return spent_reason(job, result, limit)
    left = result.images - result.ok - result.failed
    return (
        f"{left} of {result.images} images were not rendered before it was stopped: "
        f"`fewstep retry-failed {job.id} --unfinished` renders them"
    )


def _amend(
    queue: ShardQueue,
    store: Store,
    layout: JobLayout,
    job: Job,
    again: Round,
    before: Ended,
    result: Finished,
) -> None:
    """What is known of the job as a whole: in the store, and in the queue while it knows it."""
    counts, number = (result.ok, result.failed), again.number
    if result.complete:
        store.delete([layout.outcome])
        queue.amend(job.id, number, "done", "", counts)
        return
    wished = before.state in _BY_WISH
    state = before.state if wished else JobState.FAILED
    reason = before.reason if wished else _still_failed(job, result)
    news = {"reason": reason, "done": result.ok, "failed": result.failed, "state": state}
    write_outcome(store, layout, before.model_copy(update=news))
    # Of a dataset that was complete before it was extended; gone only once the outcome is there.
    store.delete([layout.success])
    queue.amend(job.id, number, OUTCOMES.get(state, "failed"), reason, counts)
