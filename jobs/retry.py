"""Retrying: the images of an ended job that have no picture, once more, as a later round of it."""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from jobs.draft import release
from jobs.errors import Conflict, TooLarge
from jobs.extent import Extent
from jobs.filter_columns import SEED_TRY
from jobs.gathering import gather
from jobs.job import PAGE_ROWS, Job, Submission
from jobs.keys import Quota
from jobs.layout import JobLayout, layout_of
from jobs.new_round import busy, check_ended, is_over, key_digest, queued, told
from jobs.quarantine import FailedRow, quarantine_rows
from jobs.rounds import Accepted, Again, Round, put_round, read_extent, rounds_of, write_pages
from jobs.row_recipe import own_recipe
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.specs import dataset_id, read_job
from jobs.spool import RowPages
from jobs.store import Store
from jobs.templates.row_templates import MAX_EXPANDED as MAX_ROWS


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
    key = key_digest(idempotency_key)
    job = read_job(store, prefix, tenant, dataset_id(job_id))
    layout = layout_of(job, prefix)
    before = rounds_of(store, layout)
    if before:
        last = before[-1]
        if not is_over(store, layout, last):
            return _running(queue, job, last, quota)
        if last.kind == "retry-failed" and last.key == key:
            return told(last, created=False)
    check_ended(store, layout, job)
    again = _drafted(store, layout, job, before, key, unfinished, now_ms)
    if not put_round(store, layout, again).stored:
        # Another call was quicker: one round at a time, so it is that one.
        return _running(queue, job, rounds_of(store, layout)[-1], quota)
    return queued(queue, Accepted(job, again), quota, created=True)


def _running(queue: ShardQueue, job: Job, last: Round, quota: Quota | None) -> Submission:
    """The retry that runs; raises Conflict where it is an extension that does."""
    if last.kind != "retry-failed":
        raise busy(last)
    return queued(queue, Accepted(job, last), quota, created=False)


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
    count = sum(stop - first for first, stop in missing)
    if count > MAX_ROWS:
        raise TooLarge(
            f"{count} images were never rendered, and a retry lists {MAX_ROWS} at most",
            where=job.id,
            remedy="a job that stopped at a limit goes on where that is raised: `fewstep budget`",
        )
    never = _never_tried(store, read_extent(store, layout, job, before), missing)
    return heapq.merge(failed, never, key=lambda one: one.image)


def _again(row: FailedRow, job: Job) -> Again:
    own = {name: row[name] for name in job.rows.columns if row[name] is not None}
    text = Row(
        prompt=row["prompt"],
        negative_prompt=row["negative_prompt"],
        recipe=own_recipe(job.recipe, row),
        extra=own,
    )
    again = Again(
        image=row["image"],
        seed=row["seed"],
        row=text,
        row_index=row["row"],
        repeat=row["repeat"],
        seed_try=row.get(SEED_TRY) or 0,
    )
    # A picture that was turned away would come out the same: its sequence goes on.
    return again.next_of(job) if row["error_kind"] == "rejected" else again


def _never_tried(store: Store, extent: Extent, runs: Iterable[tuple[int, int]]) -> Iterator[Again]:
    """The images of these runs, each of which is within one block."""
    read = RowPages(store).rows
    for first, stop in runs:
        block = extent.block_of(first)
        page_images = PAGE_ROWS * block.repeats
        for begin in range(first, stop, page_images):
            end = min(begin + page_images, stop)
            for one in block.planned(extent.job, begin, end, read):
                yield Again(
                    image=one.index,
                    seed=one.seed,
                    row=one.row,
                    row_index=one.row_index,
                    repeat=one.repeat,
                )
