"""Undoing a drop: the shards of before take the place of those that it wrote anew."""

from collections.abc import Sequence

from jobs.drop import Dropped, drop_round, finish_drop, told
from jobs.errors import Conflict
from jobs.fetch import read_index
from jobs.finish import Facts
from jobs.job import Job
from jobs.layout import SPLIT, JobLayout, layout_of
from jobs.new_round import busy, is_over
from jobs.rewriting import files_of, restore_shard, stem_anew, stem_of
from jobs.rounds import Round, put_round, rounds_of
from jobs.shard_queue import ShardQueue
from jobs.specs import dataset_id, read_job
from jobs.store import Store


def undo_drop(
    store: Store,
    queue: ShardQueue,
    facts: Facts,
    *,
    prefix: str,
    tenant: str,
    job_id: str,
    now_ms: int,
) -> Dropped:
    """Put back what the last drop took out, where nothing else was done to the dataset since.

    Raises NotFound, and Conflict where there is no such drop, or what it put aside was swept.
    """
    job = read_job(store, prefix, tenant, dataset_id(job_id))
    layout = layout_of(job, prefix)
    before = rounds_of(store, layout)
    last = before[-1] if before else None
    if last is not None and last.kind == "undo" and not is_over(store, layout, last):
        again, drop = last, before[last.undoes - 1]
    else:
        drop = _to_undo(store, layout, job, before)
        again = drop_round(
            layout, job, before, "undo", now_ms, undoes=drop.number, dropped=drop.dropped
        )
        if not put_round(store, layout, again).stored:
            raise busy(rounds_of(store, layout)[-1])
    stems = _put_aside(store, layout, drop)
    for stem in stems:
        restore_shard(store, layout, job, stem, drop.number)
    anew = {stem_anew(stem, drop.number) for stem in stems}
    kept = {stem_of(one) for one in read_index(store, layout).shards} - anew
    names = {f"{SPLIT}/{files_of(stem)[0]}" for stem in kept | set(stems)}
    finish_drop(store, queue, layout, job, facts, again, names)
    store.delete_prefix(layout.replaced(drop.number))
    return told(store, layout, again, created=True, shards=len(stems))


def _to_undo(store: Store, layout: JobLayout, job: Job, before: Sequence[Round]) -> Round:
    if before and not is_over(store, layout, before[-1]):
        raise busy(before[-1])
    if not before or before[-1].kind != "drop":
        raise Conflict(
            "there is no drop to undo: it must be the last that was done to the dataset",
            where=job.id,
            remedy="what was dropped before is in no shard; `fewstep repro` makes single ones",
        )
    if not _is_there(store, layout, before[-1]):
        raise Conflict(
            "what was dropped has been swept: it is kept for a day",
            where=job.id,
            remedy="`fewstep extend` adds further pictures",
        )
    return before[-1]


def _is_there(store: Store, layout: JobLayout, drop: Round) -> bool:
    """Whether all that a drop put aside is there still."""
    folder = layout.replaced(drop.number)
    there = {one.key.removeprefix(folder) for one in store.list(folder)}
    stems = _put_aside(store, layout, drop)
    written = {stem_of(one) for one in read_index(store, layout).shards}
    lost = {stem for stem in written if stem.endswith(stem_anew("", drop.number))}
    lost -= {stem_anew(stem, drop.number) for stem in stems if there.issuperset(files_of(stem))}
    return bool(stems) and not lost


def _put_aside(store: Store, layout: JobLayout, drop: Round) -> list[str]:
    """The shards that a drop wrote anew, by their names of before."""
    folder = layout.replaced(drop.number)
    found = (one.key.removeprefix(folder) for one in store.list(folder))
    return [name.removesuffix("_stats.json") for name in found if name.endswith("_stats.json")]
