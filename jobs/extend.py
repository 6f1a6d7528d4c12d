"""Extending: more repeats, or more rows, of a dataset that is complete, as a later round of it.

A dataset is every row with every repeat, before and after. The seeds are those that the job would
have had if all had been asked for at once, so the pictures are too.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from jobs.added_rows import Added, write_added
from jobs.allowance import Allowance
from jobs.catalog import Catalog
from jobs.discard import discard_rows
from jobs.draft import check_objects, release
from jobs.errors import Conflict, FewstepError, InvalidInput, NoCapacity, Unreachable
from jobs.extent import Block, Extent
from jobs.job import MAX_SHARDS, ExtensionRequest, Job, Submission
from jobs.keys import Quota
from jobs.layout import JobLayout, layout_of
from jobs.new_round import busy, check_complete, is_over, key_digest, queued, told
from jobs.recipe import Frozen
from jobs.results import Ended, round_outcome, write_outcome
from jobs.rounds import Accepted, Round, order_of_accepted, put_round, read_extent, rounds_of
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.specs import dataset_id, read_job
from jobs.states import JobState
from jobs.store import Store
from jobs.templates.template import Template

#: Repeats of a row, with all extensions.
MAX_REPEATS = 100_000


class Wanted(Frozen):
    """What an extension is to add: so many repeats of every row, or rows that were written down."""

    repeats: int = 0
    added: Added | None = None

    @property
    def digest(self) -> str:
        """The same for the same wish."""
        rows = [self.added.rows.count, self.added.rows.sha256] if self.added else []
        return hashlib.sha256(f"extend {self.repeats} {rows}".encode()).hexdigest()


def extend_job(
    store: Store,
    queue: ShardQueue,
    catalog: Catalog,
    *,
    prefix: str,
    tenant: str,
    job_id: str,
    request: ExtensionRequest,
    rows: Iterable[Row] | Template | None = None,
    idempotency_key: str,
    now_ms: int,
    quota: Quota | None = None,
    allowance: Allowance | None = None,
) -> Submission:
    """Add `request.repeats` more images of every row, or `rows` with as many images as all others.

    As new shards of the same dataset; what is there is not touched. The same key again is the same
    extension (`created` is false), and so is the same wish while the queue has not got it. Raises
    NotFound; InvalidInput for rows that do not fit; Conflict where the dataset is not complete,
    another round runs, or the key was used for another wish; NoCapacity and QuotaExceeded as
    submitting does: then it counts as never asked for, and the same key may be sent again.
    """
    key = key_digest(idempotency_key)
    job = read_job(store, prefix, tenant, dataset_id(job_id))
    layout = layout_of(job, prefix)
    _check_wish(request, rows is not None)
    wanted = Wanted(repeats=request.repeats)
    if rows is not None:
        repeats = read_extent(store, layout, job).repeats
        added = write_added(store, layout, catalog, job, request, rows, repeats)
        wanted = Wanted(added=added)
    with _rows_of(store, wanted):
        again, created = _accepted(store, queue, layout, job, wanted, key, now_ms, quota, allowance)
    if not created:
        _forget_rows(store, wanted)
    if is_over(store, layout, again):
        return told(again, created=False)
    try:
        return queued(queue, Accepted(job, again), quota, created=created)
    except NoCapacity:
        if queue.job(again.id) is None:
            _refuse(store, layout, again)
        raise


def _check_wish(request: ExtensionRequest, has_rows: bool) -> None:
    if (request.repeats > 0) == has_rows:
        raise InvalidInput(
            "an extension is of more repeats or of more rows",
            where="repeats",
            remedy="give one of them",
        )
    if request.expand is not None and not has_rows:
        raise InvalidInput(
            "there is nothing to expand", where="expand", remedy="leave it out, or give rows"
        )


def _refuse(store: Store, layout: JobLayout, again: Round) -> None:
    """Take an extension back that the queue has no room for: it counts as never asked for.

    Left as it is, it would stand in the way of every other one.
    """
    reason = "refused: too many jobs were open"
    ended = Ended(state=JobState.CANCELLED, reason=reason, deleted=True, refused=True)
    write_outcome(store, layout, ended, again.number)
    discard_rows(store, again)


@contextmanager
def _rows_of(store: Store, wanted: Wanted) -> Iterator[None]:
    """Remove its rows where the extension is refused; not where nobody knows whether it was."""
    try:
        yield
    except Unreachable:
        raise
    except FewstepError:
        with suppress(FewstepError):
            _forget_rows(store, wanted)
        raise


def _forget_rows(store: Store, wanted: Wanted) -> None:
    if wanted.added is not None:
        store.delete_prefix(wanted.added.rows.prefix)


def _accepted(
    store: Store,
    queue: ShardQueue,
    layout: JobLayout,
    job: Job,
    wanted: Wanted,
    key: str,
    now_ms: int,
    quota: Quota | None,
    allowance: Allowance | None,
) -> tuple[Round, bool]:
    """The extension that the store holds for this key, and whether it is this one."""
    before = rounds_of(store, layout)
    if (known := _known(store, layout, before, wanted, key)) is not None:
        return known, False
    if before and not is_over(store, layout, before[-1]):
        last = before[-1]
        # Its caller died before the queue had it, and whoever asks may have another key by now.
        if last.block and last.sha256 == wanted.digest and queue.job(last.id) is None:
            return last, False
        raise busy(last)
    check_complete(store, layout, job)
    again = _drafted(store, layout, job, before, wanted, key, now_ms)
    order_of_accepted(Accepted(job, again))
    if quota is not None and quota.images_a_day is not None and allowance is not None:
        # By its key: one that was refused and is sent again counts once.
        wish = f"{job.id}-{key}"
        allowance.spend_images(job.tenant, wish, again.images, quota.images_a_day)
    if put_round(store, layout, again, uuid.uuid4().hex).stored:
        return again, True
    # Another call was quicker, perhaps with the same key: its rows count then, not these.
    now = rounds_of(store, layout)
    if (known := _known(store, layout, now, wanted, key)) is not None:
        return known, False
    raise busy(now[-1])


def _known(
    store: Store, layout: JobLayout, before: Sequence[Round], wanted: Wanted, key: str
) -> Round | None:
    """The extension that was asked for with this key; raises Conflict for another wish."""
    for one in before:
        if not one.block or one.key != key or round_outcome(store, layout, one.number).refused:
            continue
        if one.sha256 != wanted.digest:
            raise Conflict(
                f"this key was used for the extension {one.id}, which adds something else",
                where="Idempotency-Key",
                remedy="a new key for a new extension; the same wish for a resend",
            )
        return one
    return None


def _drafted(
    store: Store,
    layout: JobLayout,
    job: Job,
    before: Sequence[Round],
    wanted: Wanted,
    key: str,
    now_ms: int,
) -> Round:
    extent, number = read_extent(store, layout, job, before), len(before) + 1
    first_shard = before[-1].stop_shard if before else job.shards
    block = _block(extent, wanted, first_shard)
    again = Round(
        kind="extend",
        job=job.id,
        number=number,
        images=block.images,
        shard_images=job.shard_images,
        first_shard=first_shard,
        # None are written: its images follow from the block.
        pages=layout.round_pages(number, "extend"),
        block=block,
        sha256=wanted.digest,
        key=key,
        created_ms=now_ms,
        fewstep=release(),
        warnings=wanted.added.warnings if wanted.added else (),
    )
    _check_size(job, extent, again)
    return again


def _block(extent: Extent, wanted: Wanted, first_shard: int) -> Block:
    if wanted.added is not None:
        return extent.more_rows(wanted.added.rows, first_shard)
    if extent.repeats + wanted.repeats > MAX_REPEATS:
        raise InvalidInput(
            f"{extent.repeats} repeats and {wanted.repeats} more are over {MAX_REPEATS}",
            where="repeats",
        )
    return extent.more_repeats(wanted.repeats, first_shard)


def _check_size(job: Job, extent: Extent, again: Round) -> None:
    if again.stop_shard > MAX_SHARDS:
        raise InvalidInput(
            f"the dataset would have more than {MAX_SHARDS} shards",
            where=job.id,
            remedy="submit the rest as a job of its own",
        )
    check_objects(job.output, extent.images + again.images)
