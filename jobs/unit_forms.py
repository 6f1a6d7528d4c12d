"""Forms of a job's pictures beside its tars: made of each tar by whoever commits or adopts it."""

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from jobs.exports.asked import Export
from jobs.exports.samples import Sample, samples_of
from jobs.exports.writers import TableFile, columns_of, table_schema
from jobs.job import Job
from jobs.layout import JobLayout, Unit
from jobs.single_objects import TYPES, WRITERS, put_pictures
from jobs.store import Store


def put_forms(store: Store, layout: JobLayout, job: Job, unit: Unit, tar: IO[bytes]) -> bool:
    """Write what the job wants of a committed tar beside it; whether it wants anything.

    It follows from the tar, so that whoever writes it again writes the same.
    """
    if job.output == "webdataset":
        return False
    tar.seek(0)
    if job.output == "objects":
        put_pictures(store, layout, tar)
        return True
    asked = Export(form=job.output, validation=job.validation, thumbnails=job.thumbnails)
    if job.output == "parquet":
        _put_tables(store, layout, job, unit, asked, tar)
    else:
        _put_folders(store, layout, unit, asked, tar)
    return True


def _put_tables(
    store: Store, layout: JobLayout, job: Job, unit: Unit, asked: Export, tar: IO[bytes]
) -> None:
    """`data/train-00017.parquet`: the unit's pictures and rows, of each split that has any."""
    schema = table_schema(job.columns, thumbnails=asked.thumbnails is not None)
    with tempfile.TemporaryDirectory(prefix="fewstep-unit-") as folder:
        tables: dict[str, TableFile] = {}
        for sample in samples_of(tar):
            split = asked.split_of(sample.row["prompt"])
            if split not in tables:
                tables[split] = TableFile(Path(folder) / split, schema, asked.thumbnails)
            tables[split].add(sample)
        for split, table in tables.items():
            table.close()
            key = layout.table_with_pictures(unit, split)
            store.put_file(key, Path(folder) / split, content_type="application/vnd.apache.parquet")


def _put_folders(
    store: Store, layout: JobLayout, unit: Unit, asked: Export, tar: IO[bytes]
) -> None:
    """`imagefolder/train/00017/KEY.png`, with a `metadata.jsonl` in each folder, written last."""
    told: dict[str, list[str]] = {}

    def files() -> Iterator[tuple[str, bytes]]:
        for sample in samples_of(tar):
            split = asked.split_of(sample.row["prompt"])
            line = {"file_name": sample.name, **columns_of(sample)}
            told.setdefault(split, []).append(json.dumps(line, ensure_ascii=False))
            yield layout.picture_folder(unit, split) + sample.name, sample.picture
            if asked.thumbnails:
                yield _thumbnail(layout, unit, split, sample, asked.thumbnails)

    def put(file: tuple[str, bytes]) -> None:
        key, data = file
        store.put(key, data, content_type=TYPES[key.rpartition(".")[2]])

    with ThreadPoolExecutor(WRITERS, "folder") as writers:
        for _ in writers.map(put, files()):
            """Each is waited for."""
    for split, lines in told.items():
        key = f"{layout.picture_folder(unit, split)}metadata.jsonl"
        store.put(key, ("\n".join(lines) + "\n").encode(), content_type="application/jsonl")


def _thumbnail(
    layout: JobLayout, unit: Unit, split: str, sample: Sample, side: int
) -> tuple[str, bytes]:
    key = f"{layout.thumbnail_folder(unit, split)}{sample.key}.jpg"
    return key, sample.thumbnail(side)
