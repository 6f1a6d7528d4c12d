"""Exporting: a fetched dataset written anew into another folder, its card last."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from jobs.contact_sheet import PICTURES, contact_sheet
from jobs.errors import InvalidInput
from jobs.exports.asked import VALIDATION, Export
from jobs.exports.card import GRID, export_card
from jobs.exports.samples import Fetched
from jobs.exports.writers import FolderWriter, TableWriter, TarWriter, Writer
from jobs.layout import SPLIT
from jobs.recipe import Frozen

#: Called after each picture: pictures there, pictures in all.
Progress = Callable[[int, int], None]


class Exported(Frozen):
    """What was written: split -> pictures, and the number of shards."""

    pictures: dict[str, int]
    shards: int


def export_dataset(
    source: Fetched, out: Path, asked: Export, progress: Progress = lambda there, total: None
) -> Exported:
    """Write the dataset's pictures and rows into `out`, an empty folder, in the form asked for.

    One picture is in memory at a time. The same dataset and request make the same files. Raises
    InvalidInput where the dataset cannot be read, or has no column to label by.
    """
    if asked.label is not None and asked.label not in source.job.rows.columns:
        raise InvalidInput(
            f"the dataset has no column {asked.label!r} of its source's",
            where="label",
            remedy=f"it has: {', '.join(source.job.rows.columns) or 'none'}",
        )
    splits = [SPLIT, VALIDATION] if asked.validation else [SPLIT]
    writers = {split: _writer(source, out, split, asked) for split in splits}
    found: Counter[str] = Counter()
    shards: dict[str, list[tuple[str, int]]] = {}
    try:
        for sample in source.samples():
            split = asked.split_of(sample.row["prompt"])
            writers[split].add(sample)
            found[split] += 1
            progress(sum(found.values()), source.index.ok)
    finally:
        for split, writer in writers.items():
            shards[split] = writer.close()
    if asked.form == "webdataset":
        for split, some in shards.items():
            (out / f"{split}.json").write_text(wids_index(source.job.id, split, out, some))
    grid = contact_sheet(sample.picture for sample in islice(source.samples(), PICTURES))
    (out / GRID).write_bytes(grid)
    pictures = {split: found[split] for split in splits}
    (out / "README.md").write_text(export_card(source, asked, pictures), "utf-8")
    return Exported(pictures=pictures, shards=sum(map(len, shards.values())))


def wids_index(name: str, split: str, out: Path, shards: list[tuple[str, int]]) -> str:
    """The index of a split's tars as `wids` reads it (wids-shard-index-v1)."""
    listed = [
        {"url": shard, "nsamples": count, "filesize": (out / shard).stat().st_size}
        for shard, count in shards
    ]
    kind = "wids-shard-index-v1"
    told = {"__kind__": kind, "wids_version": 1, "name": f"{name}-{split}", "shardlist": listed}
    return json.dumps(told, indent=1)


def _writer(source: Fetched, out: Path, split: str, asked: Export) -> Writer:
    if asked.form == "imagefolder":
        return FolderWriter(out, split, asked)
    if asked.form == "parquet":
        return TableWriter(out, split, asked, source.job.columns)
    return TarWriter(out, split, asked)
