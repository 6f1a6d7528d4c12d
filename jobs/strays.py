"""Shards of a job that had ended, made once more: a queue that went back in time gave them out."""

import io
from collections.abc import Iterable

import pyarrow.parquet as pq

from jobs.discard import form_files, shard_number
from jobs.errors import NotFound
from jobs.fetch import read_index
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.new_round import is_over
from jobs.rounds import rounds_of
from jobs.store import Store


def remove_strays(store: Store, layout: JobLayout, job: Job, shards: range) -> int:
    """Remove what there is of these shards that the dataset's index does not list; how many files.

    A shard that a drop wrote anew is not where it was, so it is rendered again, with the rows that
    were dropped. Nothing is removed while a drop runs: its own end does that. May be repeated.
    """
    folder = layout.shards
    found = [one.key for one in store.list(folder)]
    found = [key for key in found if shard_number(key.removeprefix(folder)) in shards]
    forms = [one for one in form_files(store, layout) if shard_number(f"{one.stem}.") in shards]
    # Looked for afterwards: of a drop that begins now nothing was found.
    rounds = rounds_of(store, layout)
    if rounds and not rounds[-1].renders and not is_over(store, layout, rounds[-1]):
        return 0
    try:
        listed = read_index(store, layout).shards
    except NotFound:
        return 0
    tables = {layout.root + one.parquet.name for one in listed}
    kept = tables | {layout.root + name for one in listed for name in (one.name, one.stats)}
    strays = [key for key in found if key not in kept]
    stems = {key.removeprefix(folder).removesuffix(".tar") for key in kept}
    if job.output == "objects" and strays:
        names = _pictures(store, (key for key in strays if key.endswith(".parquet")))
        names -= _pictures(store, (key for key in found if key in tables))
        store.delete(layout.pictures + name for name in names)
    store.delete(one.key for one in forms if one.stem not in stems)
    store.delete(strays)
    return len(strays)


def _pictures(store: Store, tables: Iterable[str]) -> set[str]:
    """The names of the picture files that these tables have rows of."""
    found: set[str] = set()
    for key in tables:
        table = pq.read_table(io.BytesIO(store.get(key)), columns=["file_name"])
        found |= set(table["file_name"].to_pylist())
    return found - {""}
