"""Finishing a job: index, timing, card and contact sheet from its manifests, `_SUCCESS` last."""

import hashlib
from collections.abc import Sequence, Set
from itertools import islice

from pydantic import Field

from jobs.accepting import rows_short
from jobs.card import dataset_card
from jobs.catalog import Catalog
from jobs.contact_sheet import contact_sheet, first_pictures
from jobs.covered import Tallied, expected_of
from jobs.croissant import croissant
from jobs.dataset_index import DatasetIndex, index_of, rejected_files
from jobs.discard import form_files, remove_remains, shard_number
from jobs.duplicate_list import write_duplicates
from jobs.errors import Conflict
from jobs.extent import Extent
from jobs.gathering import Gathered, gather
from jobs.job import Job
from jobs.layout import SPLIT, JobLayout
from jobs.picture_hashes import Pictures, duplicate_rule
from jobs.quarantine import Quarantine, failed_rows, remove_old_quarantine, write_quarantine
from jobs.recipe import Frozen
from jobs.rounds import Round, read_extent
from jobs.source_copies import copy_sources
from jobs.store import Store
from jobs.timing import Timing, timing_of
from jobs.twins import without_twins

_JSON = "application/json"
#: Errors that are told of a job, the commonest first.
_ERRORS_TOLD = 20


class Facts(Frozen):
    """What a job's manifests do not know."""

    #: Model, accelerator or style -> licence.
    licences: dict[str, str] = Field(default_factory=dict)
    #: Crashes that the queue counted; None: what the manifests say.
    retries: int | None = None


class Finished(Frozen):
    """How finishing went: the dataset is complete, or `missing` names runs of images."""

    complete: bool
    images: int
    ok: int
    failed: int
    shards: int
    bytes: int
    missing: tuple[tuple[int, int], ...] = Field(default=(), strict=False)
    timing: Timing | None = None
    #: Error -> how many images failed with it.
    errors: dict[str, int] = Field(default_factory=dict)
    #: Pictures that the last round made, and images that failed in it.
    last: tuple[int, int] = Field(default=(0, 0), strict=False)


def facts_of(job: Job, catalog: Catalog, retries: int | None = None) -> Facts:
    """A job's facts, its licences from the catalog."""
    recipe = job.recipe
    found = (
        {recipe.model: catalog.models[recipe.model].licence}
        if recipe.model in catalog.models
        else {}
    )
    adapters = {**catalog.accelerators, **catalog.styles}
    for adapter in (recipe.accelerator, *recipe.styles):
        if adapter is not None and adapter.name in adapters:
            found[adapter.name] = adapters[adapter.name].licence
    return Facts(licences=found, retries=retries)


def finish_job(
    store: Store,
    layout: JobLayout,
    job: Job,
    facts: Facts,
    *,
    ended: str = "",
    later: Sequence[Round] = (),
    names: Set[str] | None = None,
) -> Finished:
    """Write what makes a dataset of the job's shards; nothing where images are missing.

    `ended`: why the job ended early (cancelled, stopped). Then what there is of it gets all files
    but `_SUCCESS`, and index and card say that it is not complete. `later`: the rounds after the
    job's own; they may mend what it ended by. `names`: the tars that make it up, where known.

    May be repeated, also by two at once: the same manifests make the same files. What resembles
    other pictures is turned away first, where the job says so. What lies among the shards of these
    rounds and is in no chosen manifest (a late part of a split shard) is removed. Raises Conflict
    where the round after them was accepted: then they had ended before.
    """
    found = gather(store, layout, job, later, names)
    missing = sum(stop - first for first, stop in found.missing)
    _check_last(store, layout, later)
    if (missing and not ended) or not found.every:
        failed = sum(one.failed for one in found.every)
        index = index_of(job, found.rounds, failed=failed, missing=missing, complete=False)
        return _summary(index, found, Quarantine(), None)
    # What tells of the dataset tells of all of it, as if it had been asked for at once.
    extent = read_extent(store, layout, job, later)
    whole = extent.whole
    found, hashes = without_twins(store, layout, job, found, later[-1].number if later else 0)
    rows = failed_rows(store, layout, job, found.rounds, found.made)
    quarantine = write_quarantine(store, layout, job, rows)
    ended = "" if later and not missing and quarantine.rows <= _limit(whole) else ended
    index = index_of(
        whole,
        found.rounds,
        failed=quarantine.rows,
        missing=missing,
        complete=not ended,
        quarantine=(*quarantine.files, *rejected_files(found.every)),
        rows_short=_short_of(extent, quarantine, found),
        duplicates=_list_duplicates(store, layout, job, hashes),
    )
    # Once more: what came before takes long, and what follows deletes and overwrites.
    _check_last(store, layout, later)
    stop_shard = later[-1].stop_shard if later else job.shards
    splits = _form_splits(store, layout, job, index, stop_shard)
    remove_old_quarantine(store, layout, index.quarantine)
    # Before `_SUCCESS`: from then on a retry may be staging files.
    remove_remains(store, layout)
    own, *others = found.rounds
    timing = timing_of(whole, own, facts.retries, later=others, failed=quarantine.rows)
    _write_sources(store, layout, extent, found, quarantine)
    _write_about(store, layout, whole, index, timing, found, facts, ended, later, splits)
    # Only now: what was written anew is made of them, and the index of before may name them.
    _remove_strays(store, layout, index, stop_shard)
    _write_success(store, layout, index)
    return _summary(index, found, quarantine, timing)


def _short_of(extent: Extent, quarantine: Quarantine, found: Gathered) -> int | None:
    """The rows that lack an accepted picture; None where none was asked for."""
    if not extent.job.accept:
        return None
    return rows_short(quarantine.short, extent.rows_of(found.missing))


def _limit(job: Job) -> int:
    limit = job.failed_limit(job.images)
    return job.images if limit is None else limit


def _list_duplicates(
    store: Store, layout: JobLayout, job: Job, hashes: Pictures | None
) -> int | None:
    rule = duplicate_rule(job)
    if rule is None or hashes is None:
        return None
    return write_duplicates(store, layout, rule, hashes)


def _write_sources(
    store: Store, layout: JobLayout, extent: Extent, found: Gathered, quarantine: Quarantine
) -> None:
    """What the dataset tells of its prompt sources."""
    copy_sources(store, layout, extent)
    tallied, expected = Tallied(), expected_of(store, layout, extent)
    tallied.add(found.every)
    coverage = tallied.coverage(extent.job, extent.images, expected, quarantine.errors)
    _put_text(store, layout.coverage, coverage.model_dump_json(indent=1).encode(), _JSON)


def _write_about(
    store: Store,
    layout: JobLayout,
    job: Job,
    index: DatasetIndex,
    timing: Timing,
    found: Gathered,
    facts: Facts,
    ended: str,
    later: Sequence[Round],
    splits: Sequence[str],
) -> None:
    """What tells a reader of the shards, the index first."""
    index_json = index.model_dump_json(indent=1).encode()
    tars = [(layout.root + shard.name, shard.bytes) for shard in index.shards if shard.ok]
    _put_text(store, layout.index, index_json, _JSON)
    _put_text(store, layout.timing, timing.model_dump_json(indent=1).encode(), _JSON)
    about = croissant(job, index, hashlib.sha256(index_json).hexdigest(), facts.licences)
    _put_text(store, layout.croissant, about.encode(), "application/ld+json")
    added = {one.number for one in later if one.block}
    card = dataset_card(job, index, timing, found.every, facts.licences, ended, added, splits)
    _put_text(store, layout.card, card.encode(), "text/markdown; charset=utf-8")
    store.put(
        layout.contact_sheet,
        contact_sheet(first_pictures(store, tars)),
        content_type="image/png",
    )


def _write_success(store: Store, layout: JobLayout, index: DatasetIndex) -> None:
    """Say that the dataset is complete, if it is: the last file of all."""
    if index.complete:
        digest = hashlib.sha256(index.model_dump_json(indent=1).encode()).hexdigest()
        _put_text(store, layout.success, f"index.json sha256 {digest}\n".encode(), "text/plain")


def _check_last(store: Store, layout: JobLayout, later: Sequence[Round]) -> None:
    """Raise Conflict where there is a round after these: the files about the dataset are its."""
    following = layout.round(later[-1].number + 1 if later else 1)
    if store.head(following) is not None:
        raise Conflict(
            "the job was finished by somebody else, and has been retried since or extended",
            where=following,
        )


def _remove_strays(store: Store, layout: JobLayout, index: DatasetIndex, stop_shard: int) -> None:
    """Remove what the index does not list of the shards below `stop_shard`."""
    names = {name for shard in index.shards for name in (shard.name, shard.parquet.name)}
    names |= {shard.stats for shard in index.shards}
    keys = [found.key for found in store.list(layout.shards)]
    strays = (key for key in keys if key.removeprefix(layout.root) not in names)
    store.delete(
        key for key in strays if (shard_number(key.removeprefix(layout.shards)) or 0) < stop_shard
    )


def _form_splits(
    store: Store, layout: JobLayout, job: Job, index: DatasetIndex, stop_shard: int
) -> list[str]:
    """The splits of the form that the job wants, less what was made of tars that do not count."""
    if job.output not in ("imagefolder", "parquet"):
        return []
    stems = {shard.name.removeprefix(f"{SPLIT}/").removesuffix(".tar") for shard in index.shards}
    found = list(form_files(store, layout))
    store.delete(
        one.key
        for one in found
        if one.stem not in stems and (shard_number(f"{one.stem}.") or 0) < stop_shard
    )
    return sorted({one.split for one in found if one.stem in stems})


def _put_text(store: Store, key: str, data: bytes, content_type: str) -> None:
    store.put(key, data, content_type=content_type)


def _summary(
    index: DatasetIndex, found: Gathered, quarantine: Quarantine, timing: Timing | None
) -> Finished:
    return Finished(
        complete=index.complete,
        images=index.images,
        ok=index.ok,
        failed=index.failed,
        shards=len(index.shards),
        bytes=index.bytes,
        missing=tuple(found.missing),
        timing=timing,
        errors=dict(islice(quarantine.errors.items(), _ERRORS_TOLD)),
        last=(sum(one.ok for one in found.rounds[-1]), sum(one.failed for one in found.rounds[-1])),
    )
