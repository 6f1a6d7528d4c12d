"""Finishing a job: index, timing, card and contact sheet from its manifests, `_SUCCESS` last."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import Field

from jobs.card import dataset_card
from jobs.catalog import Catalog
from jobs.contact_sheet import contact_sheet, first_pictures
from jobs.dataset_index import DatasetIndex, cover, gaps, index_of
from jobs.errors import FewstepError
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.quarantine import failed_rows, remove_old_quarantine, write_quarantine
from jobs.recipe import Frozen
from jobs.store import Store
from jobs.timing import Timing, timing_of

#: Manifests read at a time.
_READERS = 16
_JSON = "application/json"


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
    store: Store, layout: JobLayout, job: Job, facts: Facts, *, ended: str = ""
) -> Finished:
    """Write what makes a dataset of the job's shards; nothing where images are missing.

    `ended`: why the job ended early (cancelled, stopped). Then what there is of it gets all files
    but `_SUCCESS`, and index and card say that it is not complete.

    May be repeated, also by two at once: the same manifests make the same files. What lies among
    the shards and is in no chosen manifest (a late part of a split shard) is removed.
    """
    chosen = cover(_manifests(store, layout, job))
    missing = gaps(chosen, job.images)
    if (missing and not ended) or not chosen:
        return _summary(index_of(job, chosen), chosen, missing)
    quarantine = write_quarantine(store, layout, job, failed_rows(store, layout, job, chosen))
    index = index_of(job, chosen, complete=not ended, quarantine=quarantine)
    _remove_strays(store, layout, index)
    remove_old_quarantine(store, layout, quarantine)
    timing = timing_of(job, chosen, facts.retries)
    _write_about(store, layout, job, index, timing, chosen, facts, ended)
    store.delete_prefix(f"{layout.scratch}staged/")
    return _summary(index, chosen, missing, timing)


def _write_about(
    store: Store,
    layout: JobLayout,
    job: Job,
    index: DatasetIndex,
    timing: Timing,
    chosen: Sequence[Manifest],
    facts: Facts,
    ended: str,
) -> None:
    """What tells a reader of the shards; `_SUCCESS` last, where the dataset is complete."""
    index_json = index.model_dump_json(indent=1).encode()
    tars = [(layout.root + shard.name, shard.bytes) for shard in index.shards if shard.ok]
    _put_text(store, layout.index, index_json, _JSON)
    _put_text(store, layout.timing, timing.model_dump_json(indent=1).encode(), _JSON)
    card = dataset_card(job, index, timing, chosen, facts.licences, ended)
    _put_text(store, layout.card, card.encode(), "text/markdown; charset=utf-8")
    store.put(
        layout.contact_sheet,
        contact_sheet(first_pictures(store, tars)),
        content_type="image/png",
    )
    if index.complete:
        digest = hashlib.sha256(index_json).hexdigest()
        _put_text(store, layout.success, f"index.json sha256 {digest}\n".encode(), "text/plain")


def _manifests(store: Store, layout: JobLayout, job: Job) -> list[Manifest]:
    keys = [found.key for found in store.list(layout.shards) if found.key.endswith("_stats.json")]
    with ThreadPoolExecutor(_READERS) as readers:
        found = [Manifest.model_validate_json(data) for data in readers.map(store.get, keys)]
    for key, one in zip(keys, found, strict=True):
        if one.job != job.id or not 0 <= one.first < one.stop <= job.images:
            raise FewstepError("this manifest is not of this job", where=key)
    return found


def _remove_strays(store: Store, layout: JobLayout, index: DatasetIndex) -> None:
    names = {name for shard in index.shards for name in (shard.name, shard.parquet.name)}
    names |= {shard.stats for shard in index.shards}
    keys = [found.key for found in store.list(layout.shards)]
    store.delete(key for key in keys if key.removeprefix(layout.root) not in names)


def _put_text(store: Store, key: str, data: bytes, content_type: str) -> None:
    store.put(key, data, content_type=content_type)


def _summary(
    index: DatasetIndex,
    chosen: Sequence[Manifest],
    missing: Sequence[tuple[int, int]],
    timing: Timing | None = None,
) -> Finished:
    errors = sum((Counter(one.status_dict) for one in chosen), Counter())
    del errors["ok"]
    return Finished(
        complete=index.complete and not missing,
        images=index.images,
        ok=index.ok,
        failed=index.failed,
        shards=len(index.shards),
        bytes=index.bytes,
        missing=tuple(missing),
        timing=timing,
        errors=dict(errors.most_common()),
    )
