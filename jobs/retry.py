"""Retrying: the images of an ended job that have no picture, once more, as a later round of it."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence

from jobs.draft import release
from jobs.errors import Conflict, DamagedJob, NoCapacity
from jobs.gathering import gather
from jobs.job import PAGE_ROWS, Job, Submission, image_of
from jobs.keys import Quota
from jobs.layout import JobLayout, layout_of
from jobs.quarantine import FailedRow, quarantine_rows
from jobs.results import outcome_of
from jobs.rounds import (
    Accepted,
    Again,
    Round,
    order_of_accepted,
    put_round,
    rounds_of,
    write_pages,
)
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.specs import dataset_id, read_job
from jobs.spool import fetch_rows
from jobs.store import Store
from jobs.submit import checked_key


def retry_failed(
    store: Store,
    queue: ShardQueue,
    *,
    prefix: str,
    tenant: str,
    job_id: str,
    idempotency_key: str,
    unfinished: bool = False,
    now_ms: int,
    quota: Quota | None = None,
) -> Submission:
    """Put the images of an ended job that have no picture through again; the round's id.

    With the same seeds, as new shards of the same dataset; what is there is not touched. With
    `unfinished` also the images of a cancelled or stopped job that nobody rendered. Asked again
    while a round runs, or with the key of the last one, it is that round (`created` is false).
    Raises NotFound, and Conflict where the job has not ended or nothing is to be retried.
    """
    key = hashlib.sha256(checked_key(idempotency_key).encode()).hexdigest()
    job = read_job(store, prefix, tenant, dataset_id(job_id))
    layout = layout_of(job, prefix)
    before = rounds_of(store, layout)
    if before:
        last = before[-1]
        over = store.head(layout.round_ended(last.number)) is not None
        if not over:
            return _queued(queue, Accepted(job, last), quota, created=False)
        if last.key == key:
            return _told(last, created=False)
    _check_ended(store, layout, job)
    again = _drafted(store, layout, job, before, key, unfinished, now_ms)
    if not put_round(store, layout, again).stored:
        # Another call was quicker: one round at a time, so it is that one.
        again = rounds_of(store, layout)[-1]
        return _queued(queue, Accepted(job, again), quota, created=False)
    return _queued(queue, Accepted(job, again), quota, created=True)


def _drafted(
    store: Store,
    layout: JobLayout,
    job: Job,
    before: Sequence[Round],
    key: str,
    unfinished: bool,
    now_ms: int,
) -> Round:
    """The round with its pages written; raises Conflict where it would have no image."""
    number = len(before) + 1
    # The same images make the same pages: two calls at once, or one after a death, agree.
    folder = layout.round_pages(number, "all" if unfinished else "failed")
    count, digest = write_pages(store, folder, _images(store, layout, job, before, unfinished))
    if not count:
        raise Conflict(
            "every image of the job has a picture" if unfinished else "no image of the job failed",
            where=job.id,
            remedy="there is nothing to retry"
            if unfinished
            else "images that were never rendered are retried with unfinished (--unfinished)",
        )
    return Round(
        job=job.id,
        number=number,
        images=count,
        shard_images=job.shard_images,
        first_shard=before[-1].stop_shard if before else job.shards,
        pages=folder,
        sha256=digest,
        key=key,
        created_ms=now_ms,
        fewstep=release(),
    )


def _images(
    store: Store, layout: JobLayout, job: Job, before: Sequence[Round], unfinished: bool
) -> Iterator[Again]:
    """The images to be tried again, in order; a page of each kind in memory at a time."""
    failed = (_again(row, job) for row in quarantine_rows(store, layout))
    missing = gather(store, layout, job, before).missing if unfinished else []
    return heapq.merge(failed, _never_tried(store, job, missing), key=lambda one: one.image)


def _again(row: FailedRow, job: Job) -> Again:
    own = {name: row[name] for name in job.rows.columns if row[name] is not None}
    text = Row(prompt=row["prompt"], negative_prompt=row["negative_prompt"], extra=own)
    return Again(image=row["image"], seed=row["seed"], row=text)


def _never_tried(store: Store, job: Job, runs: Iterable[tuple[int, int]]) -> Iterator[Again]:
    for first, stop in runs:
        page_images = PAGE_ROWS * job.repeats
        for begin in range(first, stop, page_images):
            end = min(begin + page_images, stop)
            first_row = begin // job.repeats
            rows = fetch_rows(store, job, first_row, (end - 1) // job.repeats + 1)
            for index in range(begin, end):
                row = rows[index // job.repeats - first_row]
                yield Again(image=index, seed=image_of(job, index, row).seed, row=row)


def _check_ended(store: Store, layout: JobLayout, job: Job) -> None:
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


def _queued(
    queue: ShardQueue, accepted: Accepted, quota: Quota | None, *, created: bool
) -> Submission:
    again = accepted.again
    assert again is not None
    reply = queue.submit(order_of_accepted(accepted, quota))
    if reply.outcome == "full":
        raise NoCapacity("too many jobs are open", remedy="ask again when one has ended")
    if reply.outcome == "conflict":
        raise DamagedJob("the queue holds another round of this number", where=again.id)
    queue.amend(again.job, again.number)
    return _told(again, created=created)


def _told(again: Round, *, created: bool) -> Submission:
    return Submission(id=again.id, created=created, images=again.images, shards=again.shards)
