"""Extending: more repeats, or more rows, of a dataset that is complete, as a later round of it.

A dataset is every row with every repeat, before and after. The seeds are those that the job would
have had if all had been asked for at once, so the pictures are too.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from jobs.allowance import Allowance
from jobs.draft import check_objects, release, tally_of
from jobs.errors import Conflict, FewstepError, InvalidInput, Unreachable
from jobs.extent import Block, Extent
from jobs.job import MAX_SHARDS, ColumnKind, Job, JobRequest, Rows, Submission
from jobs.keys import Quota
from jobs.layout import JobLayout, layout_of
from jobs.new_round import busy, check_complete, is_over, key_digest, queued, told
from jobs.recipe import Frozen
from jobs.rounds import Accepted, Round, order_of_accepted, put_round, read_extent, rounds_of
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import SourceRows
from jobs.specs import dataset_id, read_job
from jobs.spool import spool_rows
from jobs.store import Store

#: Repeats of a row, with all extensions.
MAX_REPEATS = 100_000


class Wanted(Frozen):
    """What an extension is to add: so many repeats of every row, or rows that were spooled."""

    repeats: int = 0
    rows: Rows | None = None

    @property
    def digest(self) -> str:
        """The same for the same wish."""
        rows = [self.rows.count, self.rows.sha256] if self.rows else []
        return hashlib.sha256(f"extend {self.repeats} {rows}".encode()).hexdigest()


def extend_job(
    store: Store,
    queue: ShardQueue,
    *,
    prefix: str,
    tenant: str,
    job_id: str,
    repeats: int = 0,
    rows: Iterable[Row] | None = None,
    idempotency_key: str,
    now_ms: int,
    quota: Quota | None = None,
    allowance: Allowance | None = None,
) -> Submission:
    """Add `repeats` more images of every row, or `rows` with as many images as all others have.

    As new shards of the same dataset; what is there is not touched. The same key again is the same
    extension (`created` is false), and so is the same wish while the queue has not got it. Raises
    NotFound; InvalidInput for rows that do not fit; Conflict where the dataset is not complete,
    another round runs, or the key was used for another wish; NoCapacity and QuotaExceeded as
    submitting does.
    """
    key = key_digest(idempotency_key)
    job = read_job(store, prefix, tenant, dataset_id(job_id))
    layout = layout_of(job, prefix)
    if (repeats > 0) == (rows is not None):
        raise InvalidInput(
            "an extension is of more repeats or of more rows",
            where="repeats",
            remedy="give one of them",
        )
    wanted = Wanted(repeats=repeats)
    if rows is not None:
        wanted = Wanted(rows=_spooled(store, layout, job, rows))
    with _rows_of(store, wanted):
        again, created = _accepted(store, queue, layout, job, wanted, key, now_ms, quota, allowance)
    if not created and wanted.rows is not None:
        store.delete_prefix(wanted.rows.prefix)
    if is_over(store, layout, again):
        return told(again, created=False)
    return queued(queue, Accepted(job, again), quota, created=created)


@contextmanager
def _rows_of(store: Store, wanted: Wanted) -> Iterator[None]:
    """Remove its rows where the extension is refused; not where nobody knows whether it was."""
    try:
        yield
    except Unreachable:
        raise
    except FewstepError:
        if wanted.rows is not None:
            with suppress(FewstepError):
                store.delete_prefix(wanted.rows.prefix)
        raise


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
    if (known := _known(before, wanted, key)) is not None:
        return known, False
    if before and not is_over(store, layout, before[-1]):
        last = before[-1]
        # It found no room in the queue, or its caller died, whoever has its key now.
        if last.block and last.sha256 == wanted.digest and queue.job(last.id) is None:
            return last, False
        raise busy(last)
    check_complete(store, layout, job)
    again = _drafted(store, layout, job, before, wanted, key, now_ms)
    order_of_accepted(Accepted(job, again))
    if quota is not None and quota.images_a_day is not None and allowance is not None:
        allowance.spend_images(job.tenant, again.id, again.images, quota.images_a_day)
    if put_round(store, layout, again).stored:
        return again, True
    # Another call was quicker.
    now = rounds_of(store, layout)
    if (known := _known(now, wanted, key)) is not None:
        return known, False
    raise busy(now[-1])


def _known(before: Sequence[Round], wanted: Wanted, key: str) -> Round | None:
    """The extension that was asked for with this key; raises Conflict for another wish."""
    for one in before:
        if one.block and one.key == key:
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
    )
    _check_size(job, extent, again)
    return again


def _block(extent: Extent, wanted: Wanted, first_shard: int) -> Block:
    if wanted.rows is not None:
        return extent.more_rows(wanted.rows, first_shard)
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


def _spooled(store: Store, layout: JobLayout, job: Job, rows: Iterable[Row]) -> Rows:
    """The rows written down in a folder of their own; raises InvalidInput, and leaves none."""
    folder = f"{layout.scratch}rows-{uuid.uuid4().hex[:16]}/"
    if isinstance(rows, SourceRows):
        rows.check = _same_settings
    tally = tally_of(JobRequest(), rows, note=_same_settings)
    found = spool_rows(store, iter(tally), folder)
    try:
        if not found.count:
            raise InvalidInput("there is no row in it", where="prompts")
        if tally.rejected.lines:
            raise InvalidInput(
                f"{len(tally.rejected.lines)} rows cannot be rendered",
                where="prompts",
                remedy="an extension leaves none out: correct or remove them",
            )
        _check_columns(found.columns, job)
    except InvalidInput:
        with suppress(FewstepError):
            store.delete_prefix(folder)
        raise
    return found


def _same_settings(row: Row, where: str) -> None:
    if row.recipe is not None:
        raise InvalidInput(
            f"{next(iter(row.recipe.given))} cannot be set for rows that are added",
            where=where,
            remedy="they have the settings of the job; submit others as a job of their own",
        )


def _check_columns(found: dict[str, ColumnKind], job: Job) -> None:
    """Raise InvalidInput where rows have a column, or values, that the dataset has no room for."""
    known = job.rows.columns
    for name, kind in found.items():
        if name not in known:
            raise InvalidInput(
                f"the dataset has no column {name!r}",
                where="prompts",
                remedy=f"it has {', '.join(known) or 'none of your own'}; --drop leaves one out",
            )
        if known[name] not in (kind, "string") and (known[name], kind) != ("float", "int"):
            raise InvalidInput(
                f"the column {name!r} holds {kind} values; in the dataset it is {known[name]}",
                where="prompts",
                remedy="write its values as the dataset has them",
            )
