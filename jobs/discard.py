"""Removing what nobody wants any more: of cancelled jobs, of dead claims, of cut uploads."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.layout import JobLayout
from jobs.objects import ObjectInfo
from jobs.rounds import Round
from jobs.store import Store

_SHARD = re.compile(r"(\d{5,})[-._]")
#: `train-00017.parquet`, `train/00017-0500-0999/KEY.png`.
_FORM = re.compile(r"([a-z]+)[-/](\d{5,}(?:-\d{4,}-\d{4,})?(?:-r\d{4})?)[./]")


def discard_job(store: Store, layout: JobLayout) -> None:
    """Delete all of a job but its settings and how it ended. May be repeated."""
    kept = {layout.job, layout.outcome}
    store.delete(found.key for found in store.list(layout.root) if found.key not in kept)
    store.delete_prefix(layout.scratch)
    abort_uploads(store, layout)


def discard_round(store: Store, layout: JobLayout, again: Round) -> None:
    """Delete the shards of a later round. May be repeated."""
    own = range(again.first_shard, again.stop_shard)
    for folder in (layout.shards, layout.pictures):
        names = (found.key.removeprefix(folder) for found in store.list(folder))
        store.delete(folder + name for name in names if shard_number(name) in own)
    forms = form_files(store, layout)
    store.delete(one.key for one in forms if shard_number(f"{one.stem}.") in own)
    names = (found.key.removeprefix(layout.quarantine_folder) for found in tars(store, layout))
    store.delete(layout.quarantine_folder + name for name in names if shard_number(name) in own)


def discard_rows(store: Store, again: Round) -> None:
    """Delete the rows that a later round brought, which nothing is to be made of any more."""
    for one in again.block.brought if again.block else ():
        store.delete_prefix(one.rows.prefix)


def tars(store: Store, layout: JobLayout) -> Iterator[ObjectInfo]:
    """The tars in the quarantine: its other files have numbers of their own."""
    return (one for one in store.list(layout.quarantine_folder) if one.key.endswith(".tar"))


def remove_remains(store: Store, layout: JobLayout) -> None:
    """Remove what claims of a job left that has ended: staged files and uploads in parts."""
    store.delete_prefix(f"{layout.scratch}staged/")
    abort_uploads(store, layout)


def abort_uploads(store: Store, layout: JobLayout) -> None:
    """End every upload in parts into the job's folders; its bytes are paid for and never seen."""
    for folder in (layout.root, layout.scratch):
        store.abort_uploads(folder)


def shard_number(name: str) -> int | None:
    """The shard that a file among the shards belongs to, None if to none."""
    match = _SHARD.match(name)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class FormFile:
    """What was made of a tar beside it: its key, its split, the tar's name (`00017-0500-0999`)."""

    key: str
    split: str
    stem: str


def form_files(store: Store, layout: JobLayout) -> Iterator[FormFile]:
    """All of a job's files of that kind."""
    for folder in layout.form_folders:
        for found in store.list(folder):
            match = _FORM.match(found.key.removeprefix(folder))
            if match is not None:
                yield FormFile(found.key, match[1], match[2])


def orphans(store: Store, layout: JobLayout) -> Iterator[str]:
    """Names of tars without a manifest (`00017-0500-0999`): their claim died in its commit."""
    names = {found.key.removeprefix(layout.shards) for found in store.list(layout.shards)}
    for name in sorted(names):
        stem = name.removesuffix(".tar")
        if stem != name and f"{stem}_stats.json" not in names:
            yield stem
