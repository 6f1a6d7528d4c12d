"""Fetching a finished dataset: its files into a folder, each compared with its digest."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from jobs.brought import Brought
from jobs.dataset_index import DatasetIndex, IndexFile
from jobs.errors import FewstepError, NotFound
from jobs.layout import JobLayout
from jobs.recipe import Frozen
from jobs.source_copies import source_copies
from jobs.store import Store

#: Files downloaded at a time.
_READERS = 4

#: Called after each file: bytes there, bytes in all.
Progress = Callable[[int, int], None]


class Fetched(Frozen):
    """What a fetch did: `kept` files were right already."""

    files: int
    kept: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file of the dataset; `sha256` is empty where the index has none for it."""

    name: str
    bytes: int
    sha256: str = ""


def read_index(store: Store, layout: JobLayout) -> DatasetIndex:
    """The index of a dataset whose job has ended; raises NotFound where there is none yet.

    That of a job which was cancelled or stopped lists what there is of it (`complete` is false).
    """
    waiting = NotFound(
        "the dataset is not finished",
        where=f"job {layout.job_id}",
        remedy="wait for the job to be done",
    )
    finished = store.head(layout.success) is not None
    try:
        index = DatasetIndex.model_validate_json(store.get(layout.index))
    except NotFound as error:
        raise waiting from error
    if index.complete and not finished:
        raise waiting
    return index


def fetch_dataset(
    store: Store,
    layout: JobLayout,
    out: Path,
    progress: Progress = lambda there, total: None,
) -> Fetched:
    """Download a dataset to the root of `out`; what is right already is kept.

    What an earlier fetch brought and the dataset has no more is removed. Tars and parquet files are
    compared with their digests. Of a job that was cancelled or stopped
    it is what there is, without `_SUCCESS`. Raises NotFound where the job has not ended,
    FewstepError where a file is not what the index says, even when read again.
    """
    index = read_index(store, layout)
    shards = [_Wanted(one.name, one.bytes, one.sha256) for one in _shard_files(index)]
    rest = [
        _Wanted(name, _size(store, layout, name)) for name in _other_files(store, layout, index)
    ]
    for folder in (layout.pictures, *layout.form_folders):
        rest += [_Wanted(_name(layout, one.key), one.bytes) for one in store.list(folder)]
    total = sum(one.bytes for one in shards + rest)
    there = kept = 0
    # What tells a reader that all is there comes last, here as in the store.
    last = [_Wanted(_name(layout, layout.success), 0)] if index.complete else []
    # Whose dataset it is comes first, so that a folder that was cut is known for it.
    first = [one for one in rest if one.name == _name(layout, layout.job)]

    def copy(group: list[_Wanted]) -> None:
        nonlocal there, kept
        with ThreadPoolExecutor(_READERS) as readers:
            jobs = {readers.submit(_fetch, store, layout, one, out): one for one in group}
            for job in as_completed(jobs):
                kept += job.result()
                there += jobs[job].bytes
                progress(there, total)

    copy(first)
    brought = Brought(out, [one.name for one in (*shards, *rest, *last)])
    copy(shards + [one for one in rest if one not in first])
    brought.tidy()
    copy(last)
    return Fetched(files=len(shards) + len(rest) + len(last), kept=kept, bytes=total)


def _fetch(store: Store, layout: JobLayout, wanted: _Wanted, out: Path) -> bool:
    """True where the file was right already."""
    path = out / wanted.name
    if wanted.sha256 and _is_right(path, wanted):
        return True
    for _ in range(2):
        digest = store.download(layout.root + wanted.name, path)
        if digest == (wanted.sha256 or digest):
            return False
    path.unlink()
    raise FewstepError(
        "the file is not what the index says",
        where=store.address + "/" + layout.root + wanted.name,
        remedy="its bytes were changed in the store; render the job again",
    )


def _is_right(path: Path, wanted: _Wanted) -> bool:
    if not path.is_file() or path.stat().st_size != wanted.bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256


def _shard_files(index: DatasetIndex) -> Iterator[IndexFile]:
    for shard in index.shards:
        yield shard
        yield shard.parquet
    yield from index.quarantine


def _other_files(store: Store, layout: JobLayout, index: DatasetIndex) -> list[str]:
    keys = [layout.card, layout.job, layout.timing, layout.contact_sheet, layout.index]
    by_choice = (layout.coverage, layout.duplicates, layout.croissant)
    keys += [key for key in by_choice if store.head(key) is not None]
    keys += source_copies(store, layout)
    return [*(shard.stats for shard in index.shards), *(_name(layout, key) for key in keys)]


def _name(layout: JobLayout, key: str) -> str:
    return key.removeprefix(layout.root)


def _size(store: Store, layout: JobLayout, name: str) -> int:
    found = store.head(layout.root + name)
    if found is None:
        raise NotFound(
            "a file of the dataset is gone",
            where=f"{store.address}/{layout.root}{name}",
            remedy="it was deleted in the store; finishing the job again may bring it back",
        )
    return found.bytes
