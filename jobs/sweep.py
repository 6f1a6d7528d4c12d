"""Sweeping: what deaths left behind in the store, once it is so old that nobody can own it."""

import logging
from collections.abc import Iterator, Sequence

from jobs.errors import DamagedJob
from jobs.layout import JobLayout
from jobs.objects import ObjectInfo
from jobs.recipe import Frozen
from jobs.rounds import Round, rounds_of, withdrawn
from jobs.specs import job_folders, read_job
from jobs.store import Store

log = logging.getLogger(__name__)

#: Nothing younger is swept: no submission, claim or upload lasts as long.
OLD_MS = 24 * 3600 * 1000


class Swept(Frozen):
    """What was removed."""

    objects: int = 0
    uploads: int = 0


def sweep(store: Store, prefix: str, now_ms: int, old_ms: int = OLD_MS) -> Swept:
    """Remove what is older than `old_ms` and belongs to nobody.

    Staged files and pages of ended jobs and rounds, shards as they were before a drop, rows of
    submissions and extensions that were never accepted or were withdrawn, probes, and uploads in
    parts that were cut. Never a shard of a dataset, or a row of an accepted job.
    """
    before, removed = now_ms - old_ms, 0
    for layout in _scratch_layouts(store, prefix):
        try:
            keys = list(_stale(store, layout, before))
        except DamagedJob as error:
            # Nobody can tell what such a job needs; it must not keep others' remains.
            log.error("not_swept job=%s error=%s", layout.job_id, error)
            continue
        store.delete(keys)
        removed += len(keys)
    probes = store.list(f"{prefix}/_scratch/probe-")
    old = [found.key for found in probes if found.modified_ms < before]
    store.delete(old)
    uploads = store.abort_uploads(f"{prefix}/", before_ms=before)
    return Swept(objects=removed + len(old), uploads=uploads)


def _scratch_layouts(store: Store, prefix: str) -> Iterator[JobLayout]:
    for tenant, job_id in job_folders(store, f"{prefix}/_scratch/"):
        yield JobLayout(prefix=prefix, tenant=tenant, job_id=job_id)


def _stale(store: Store, layout: JobLayout, before: int) -> Iterator[str]:
    found = list(store.list(layout.scratch))
    if store.head(layout.job) is None:
        # A submission that died before it was accepted; one that is being sent is younger.
        if all(one.modified_ms < before for one in found):
            yield from (one.key for one in found)
        return
    rounds = rounds_of(store, layout)
    old = [one for one in found if one.modified_ms < before]
    yield from _rows_of_nobody(store, layout, rounds, old)
    if any(store.head(key) is not None for key in (layout.success, layout.outcome)):
        yield from _remains(store, layout, rounds, found, before)


def _remains(
    store: Store,
    layout: JobLayout,
    rounds: Sequence[Round],
    found: Sequence[ObjectInfo],
    before: int,
) -> Iterator[str]:
    """What claims and rounds left of a job that has ended."""
    running = [one for one in rounds if store.head(layout.round_ended(one.number)) is None]
    pages = tuple(again.pages for again in running)
    # While a drop or its undoing runs, or was cut short, what is put aside is its.
    changing = any(not again.renders for again in running)
    kinds = (
        f"{layout.scratch}staged/",
        f"{layout.scratch}rounds/",
        f"{layout.scratch}replaced/",
    )
    newest: dict[str, int] = {}
    for one in found:
        folder = one.key.rpartition("/")[0]
        newest[folder] = max(newest.get(folder, 0), one.modified_ms)
    for one in found:
        ours = one.key.startswith(kinds) and not (pages and one.key.startswith(pages))
        # While a retry runs, what is staged may be its.
        staged = running and one.key.startswith(kinds[0])
        modified_ms = one.modified_ms
        if one.key.startswith(kinds[2]):
            # It goes back whole, or not at all.
            modified_ms = before if changing else newest[one.key.rpartition("/")[0]]
        if ours and not staged and modified_ms < before:
            yield one.key


def _rows_of_nobody(
    store: Store, layout: JobLayout, rounds: Sequence[Round], old: Sequence[ObjectInfo]
) -> Iterator[str]:
    """Rows that came with a submission or an extension which is none of this dataset."""
    rows = [one.key for one in old if one.key.startswith(f"{layout.scratch}rows-")]
    if rows:
        known = tuple(_rows_folders(store, layout, rounds))
        yield from (key for key in rows if not key.startswith(known))


def _rows_folders(store: Store, layout: JobLayout, rounds: Sequence[Round]) -> Iterator[str]:
    """The folders of the rows that a dataset has, or is to have."""
    job = read_job(store, layout.prefix, layout.tenant, layout.job_id)
    yield job.rows.prefix
    for again in rounds:
        if again.block and not withdrawn(store, layout, again):
            yield from (one.rows.prefix for one in again.block.brought)
