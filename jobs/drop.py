"""Dropping: rows taken out of a dataset that is complete, by a condition on their columns.

Shards that hold such rows are written anew under another name, and index, card and timing follow;
the shards of before are put aside, from where an undo takes them back. A drop is a later round of
the job, so that nothing else changes the dataset meanwhile; one that was cut short goes on when it
is asked for again.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import Field

from jobs.dataset_index import IndexShard
from jobs.draft import release
from jobs.errors import Conflict, NotFound
from jobs.fetch import read_index
from jobs.finish import Facts, finish_job
from jobs.job import Job
from jobs.layout import SPLIT, JobLayout, layout_of
from jobs.matching import Found, matching
from jobs.new_round import busy, check_complete, is_over, key_digest
from jobs.recipe import Frozen
from jobs.results import Ended, write_outcome
from jobs.rewriting import (
    files_of,
    read_rows_of,
    rewrite_shard,
    stem_anew,
    stem_of,
)
from jobs.rounds import Round, put_round, rounds_of
from jobs.rows import Scalar
from jobs.shard_queue import ShardQueue
from jobs.shard_row import schema_of
from jobs.specs import dataset_id, read_job
from jobs.states import JobState
from jobs.store import Store
from jobs.where import Where, parse_where

#: Shards written anew at a time.
_WRITERS = 4


class Dropped(Frozen):
    """What a drop takes out, or has; `id` is empty where it was only looked at."""

    id: str = ""
    created: bool = False
    images: int = Field(description="Images that the dataset was to have")
    dropped: int = Field(description="Images that this takes out, or puts back")
    shards: int = Field(description="Shards that are written anew")
    examples: tuple[dict[str, Scalar], ...] = Field(
        default=(), strict=False, description="Some of the rows that match, before it is done"
    )


def look(store: Store, prefix: str, tenant: str, job_id: str, where: str) -> Dropped:
    """What a drop would take out; raises what `drop_rows` does. Writes nothing."""
    job = read_job(store, prefix, tenant, dataset_id(job_id))
    layout = layout_of(job, prefix)
    condition = parse_where(where, schema_of(job.columns))
    check_complete(store, layout, job)
    index = read_index(store, layout)
    found = matching(store, layout, index, condition)
    return Dropped(
        images=index.images,
        dropped=len(found.images),
        shards=len(found.shards),
        examples=found.examples,
    )


def drop_rows(
    store: Store,
    queue: ShardQueue,
    facts: Facts,
    *,
    prefix: str,
    tenant: str,
    job_id: str,
    where: str,
    idempotency_key: str,
    now_ms: int,
) -> Dropped:
    """Take the images of which `where` is true out of the dataset.

    An image's last row decides: that of the retry which made it. The same key again is the same
    drop (`created` is false). Raises NotFound; InvalidInput for a condition that does not read;
    Conflict where the dataset is not complete, a round of it runs, or nothing or all would go.
    """
    key = key_digest(idempotency_key)
    job = read_job(store, prefix, tenant, dataset_id(job_id))
    layout = layout_of(job, prefix)
    condition = parse_where(where, schema_of(job.columns))
    digest = hashlib.sha256(f"drop {where}".encode()).hexdigest()
    before = rounds_of(store, layout)
    again = _known(before, key, digest)
    if again is not None and is_over(store, layout, again):
        if again.number == len(before):
            # It may have been cut short just before the queue was told.
            index = read_index(store, layout)
            queue.amend(job.id, again.number, "done", "", (index.ok, index.failed))
        return told(store, layout, again, created=False)
    found: Found | None = None
    if again is None:
        again, found = _accepted(store, layout, job, before, condition, where, digest, key, now_ms)
    created = again.number > len(before)
    found = found or matching(store, layout, read_index(store, layout), condition)
    try:
        _rewrite(store, layout, job, again, found)
        finish_drop(store, queue, layout, job, facts, again, _names(store, layout, again, found))
    except (NotFound, Conflict):
        # The same drop, sent twice, was done by the other call: the shards of before are gone.
        if not is_over(store, layout, again):
            raise
    return told(store, layout, again, created=created, shards=len(found.shards))


def _known(before: Sequence[Round], key: str, digest: str) -> Round | None:
    """The drop of this key; or the last round, where it is the same drop, cut short."""
    for one in before:
        if one.kind == "drop" and one.key == key:
            if one.sha256 != digest:
                raise Conflict(
                    f"this key was used for the drop {one.id}, whose condition is another",
                    where="Idempotency-Key",
                    remedy="a new key for a new drop; the same condition for a resend",
                )
            return one
    return None


def _accepted(
    store: Store,
    layout: JobLayout,
    job: Job,
    before: Sequence[Round],
    condition: Where,
    where: str,
    digest: str,
    key: str,
    now_ms: int,
) -> tuple[Round, Found | None]:
    """The round, and what it drops where it is new."""
    if before and not is_over(store, layout, before[-1]):
        if before[-1].kind == "drop" and before[-1].sha256 == digest:
            return before[-1], None
        raise busy(before[-1])
    check_complete(store, layout, job)
    index = read_index(store, layout)
    found = matching(store, layout, index, condition)
    if not found.images:
        raise Conflict("no image matches", where="where", remedy="--dry-run shows what would")
    if found.pictures == index.ok:
        raise Conflict(
            "every picture matches: nothing would be left",
            where="where",
            remedy="a dataset that nobody wants is not fetched; its folder may be deleted",
        )
    again = drop_round(
        layout,
        job,
        before,
        "drop",
        now_ms,
        where=where,
        dropped=len(found.images),
        key=key,
        sha256=digest,
    )
    if not put_round(store, layout, again).stored:
        raise busy(rounds_of(store, layout)[-1])
    return again, found


def drop_round(
    layout: JobLayout, job: Job, before: Sequence[Round], kind: str, now_ms: int, **more: object
) -> Round:
    """The round of a drop or of its undoing, which is to follow `before`."""
    number = len(before) + 1
    return Round.model_validate(
        {
            "kind": kind,
            "job": job.id,
            "number": number,
            "images": 0,
            "shard_images": job.shard_images,
            "first_shard": before[-1].stop_shard if before else job.shards,
            # None are written: it renders nothing.
            "pages": layout.round_pages(number, kind),
            "sha256": "",
            "key": key_digest(f"{kind}-{number}"),
            "created_ms": now_ms,
            "fewstep": release(),
            **more,
        }
    )


def _rewrite(store: Store, layout: JobLayout, job: Job, again: Round, found: Found) -> None:
    def write(shard: IndexShard) -> None:
        rows = read_rows_of(store, layout, shard)
        gone = found.images & set(rows["image"].to_pylist())
        rewrite_shard(store, layout, job, shard, again.number, rows, set(gone))
        if job.output == "objects":
            lost = [row for row in rows.to_pylist() if row["image"] in gone and row["file_name"]]
            store.delete(layout.pictures + row["file_name"] for row in lost)

    with ThreadPoolExecutor(_WRITERS, "rewrite") as writers:
        for _ in writers.map(write, found.shards):
            """Whatever went wrong is raised here."""


def _names(store: Store, layout: JobLayout, again: Round, found: Found) -> set[str]:
    """The tars that make up the dataset afterwards."""
    old = {one.name for one in found.shards}
    anew = {stem_anew(stem_of(one), again.number) for one in found.shards}
    kept = {one.name for one in read_index(store, layout).shards} - old
    return kept | {f"{SPLIT}/{files_of(stem)[0]}" for stem in anew}


def finish_drop(
    store: Store,
    queue: ShardQueue,
    layout: JobLayout,
    job: Job,
    facts: Facts,
    again: Round,
    names: set[str],
) -> None:
    """The files about the dataset, then the round's end, then the queue."""
    later = [one for one in rounds_of(store, layout) if one.number <= again.number]
    done = finish_job(store, layout, job, facts, later=later, names=names)
    if not done.complete:
        raise Conflict(
            "shards of the dataset are gone from the store", where=job.id, remedy="see its index"
        )
    write_outcome(store, layout, Ended(state=JobState.DONE, done=again.dropped), again.number)
    queue.amend(job.id, again.number, "done", "", (done.ok, done.failed))


def told(
    store: Store, layout: JobLayout, again: Round, *, created: bool, shards: int = 0
) -> Dropped:
    """What is answered for such a round."""
    return Dropped(
        id=again.id,
        created=created,
        images=read_index(store, layout).images,
        dropped=again.dropped,
        shards=shards,
    )
