"""Beginning a later round of a job: what retries and extensions have in common."""

import hashlib

from jobs.errors import Conflict, DamagedJob, NoCapacity
from jobs.job import Job, Submission
from jobs.keys import Quota
from jobs.layout import JobLayout
from jobs.results import outcome_of
from jobs.rounds import Accepted, Round, order_of_accepted, read_extent
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.submit import checked_key


def key_digest(idempotency_key: str) -> str:
    """What a round keeps of the key it was asked for with; raises InvalidInput."""
    return hashlib.sha256(checked_key(idempotency_key).encode()).hexdigest()


def is_over(store: Store, layout: JobLayout, again: Round) -> bool:
    """Whether a round has ended."""
    return store.head(layout.round_ended(again.number)) is not None


def check_ended(store: Store, layout: JobLayout, job: Job) -> None:
    """Raise Conflict where the job has not ended, or was deleted."""
    if not any(store.head(key) is not None for key in (layout.success, layout.outcome)):
        raise Conflict(
            "the job has not ended",
            where=job.id,
            remedy="wait for its end (`fewstep watch`), or cancel it first",
        )
    if outcome_of(store, layout).deleted:
        raise Conflict(
            "the job was deleted with its prompts",
            where=job.id,
            remedy="submit the prompts again as a new job",
        )


def check_complete(store: Store, layout: JobLayout, job: Job) -> None:
    """Raise Conflict where the job has not ended, or images of it were never rendered."""
    check_ended(store, layout, job)
    if store.head(layout.success) is None:
        ended = outcome_of(store, layout)
        if ended.done >= read_extent(store, layout, job).images:
            raise Conflict(
                f"the job is {ended.state}, though all its images were made",
                where=job.id,
                remedy="`fewstep fetch` copies it as it is; submit the prompts as a new job for "
                "one that can be changed",
            )
        raise Conflict(
            "the dataset is not complete: images of the job were never rendered",
            where=job.id,
            remedy="`fewstep retry-failed --unfinished` renders them; ask again then",
        )


def busy(last: Round) -> Conflict:
    """What is said where another round runs."""
    if not last.renders:
        return Conflict(
            f"a {last.kind} of the job runs, or was cut short",
            where=last.job,
            remedy="wait for its end; sent again as it was, it is completed",
        )
    what = "an extension" if last.block else "a retry"
    return Conflict(
        f"{what} of the job runs: {last.id}",
        where=last.job,
        remedy="wait for its end (`fewstep watch`), or cancel it",
    )


def queued(
    queue: ShardQueue, accepted: Accepted, quota: Quota | None, *, created: bool
) -> Submission:
    """Tell the queue of a round that is written down; raises NoCapacity. May be repeated."""
    again = accepted.again
    assert again is not None
    reply = queue.submit(order_of_accepted(accepted, quota))
    if reply.outcome == "full":
        raise NoCapacity("too many jobs are open", remedy="ask again when one has ended")
    if reply.outcome == "conflict":
        raise DamagedJob("the queue holds another round of this number", where=again.id)
    queue.amend(again.job, again.number)
    return told(again, created=created)


def told(again: Round, *, created: bool) -> Submission:
    """What is answered for a round."""
    return Submission(
        id=again.id,
        created=created,
        images=again.images,
        shards=again.shards,
        warnings=again.warnings,
        relative_cost=round(again.block.cost, 6) if again.block else 1.0,
    )
