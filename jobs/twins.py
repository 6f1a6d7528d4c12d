"""Near-duplicates across shards: what resembles a picture of another shard is turned away.

Renderers know their shard alone, so this is done when the shards of a round are finished, before
any index lists them: each shard with such a picture is written anew under another name
(`00003-r0000`), and what its claim had committed is removed once the index names the new one.
Shards that an index has listed before stay as they are: of two pictures that resemble each other
the one goes that no index had. So a finish that dies anywhere finds the same when it is repeated.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from jobs.duplicates import near_duplicates
from jobs.filter_columns import DUPLICATE_OF, TURNED_AWAY, rejects_of, score_column
from jobs.filters import JobFilter
from jobs.gathering import Gathered
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.picture_hashes import Pictures, duplicate_rule, key_of, read_hashes, within_of
from jobs.rejected import put_rejected_of
from jobs.rewriting import read_table_of, tar_of, write_anew
from jobs.shard_row import ShardRow
from jobs.store import Store

#: Shards written anew at a time.
_WRITERS = 4


class Twin(NamedTuple):
    """The earlier picture that one resembles, by its key, and by how many bits they differ."""

    of: str
    distance: int


def without_twins(
    store: Store, layout: JobLayout, job: Job, found: Gathered, number: int
) -> tuple[Gathered, Pictures | None]:
    """The shards without pictures that resemble others, where the job's policy is not to keep them.

    `number`: of the round that is finished. Also the hashes of what there is; None of a job that
    does not look for near-duplicates. May be repeated: the same shards make the same files.
    """
    rule = duplicate_rule(job)
    if rule is None:
        return found, None
    every = found.every
    pictures = read_hashes(store, layout, rule, every)
    fresh = [place for place, one in enumerate(every) if found.is_new(one)]
    if rule.policy == "keep" or not fresh:
        return found, pictures
    pictures, twins = _judged(pictures, np.array(fresh), within_of(rule))

    def write(place: int) -> Manifest:
        return _write(store, layout, job, rule, number, every[place], twins[place])

    with ThreadPoolExecutor(_WRITERS, "twins") as writers:
        anew = dict(zip(twins, writers.map(write, twins), strict=True))
    told = {every[place].tar.name: one for place, one in anew.items()}
    return replace(
        found,
        rounds=[[told.get(one.tar.name, one) for one in some] for some in found.rounds],
        made=found.made - {image for some in twins.values() for image in some},
    ), pictures


def _judged(
    pictures: Pictures, fresh: np.ndarray, within: int
) -> tuple[Pictures, dict[int, dict[int, Twin]]]:
    """The pictures, and of each unit of `fresh` what goes: image -> what it resembles.

    One goes that is close to any picture of the dataset as it was, or to any earlier one that is
    new, whether or not that one is kept, as within a shard: it does not matter how new ones are
    shared out among shards.
    """
    new = np.isin(pictures["unit"], fresh)
    counts = new | pictures["kept"]
    pictures, new = pictures[counts], new[counts]
    order = np.lexsort((pictures["image"], new))
    pictures, new = pictures[order], new[order]
    found, apart = near_duplicates(pictures["hash"], within)
    gone = np.flatnonzero(new & pictures["kept"] & (found >= 0))
    twins: dict[int, dict[int, Twin]] = {}
    for at in gone:
        twin = Twin(key_of(pictures["key"][found[at]]), int(apart[at]))
        some = twins.setdefault(int(pictures["unit"][at]), {})
        some[int(pictures["image"][at])] = twin
    pictures["kept"][gone] = False
    return pictures, twins


def _write(
    store: Store,
    layout: JobLayout,
    job: Job,
    rule: JobFilter,
    number: int,
    manifest: Manifest,
    twins: Mapping[int, Twin],
) -> Manifest:
    """Write a unit anew with these of its images turned away; its manifest then."""
    table = read_table_of(store, layout, manifest)
    before = table.to_pylist()
    rows = [
        _turned_away(row, rule, twins[row["image"]]) if row["image"] in twins else row
        for row in before
    ]
    # What is turned away has no file name: that of before is needed below.
    gone = {row["key"]: row["file_name"] for row in before if row["image"] in twins}
    with tar_of(store, layout, manifest) as tar:
        news = {
            "rejects": rejects_of(rows),
            "rejected": put_rejected_of(store, layout, manifest, tar, rows, gone.keys()),
        }
        told = pa.Table.from_pylist(rows, schema=table.schema)
        done = write_anew(store, layout, job, manifest, number, told, gone.keys(), tar, news)
    if job.output == "objects":
        store.delete(layout.pictures + name for name in gone.values())
    return done


def _turned_away(row: ShardRow, rule: JobFilter, twin: Twin) -> ShardRow:
    """The row as it reads where a renderer turned the picture away."""
    words = [one for one in (row[TURNED_AWAY], rule.name) if one]
    return row | {
        "status": "failed",
        "error": f"rejected:{rule.name}",
        "error_kind": "rejected",
        "file_name": "",
        DUPLICATE_OF: twin.of,
        score_column(rule.name): float(twin.distance),
        TURNED_AWAY: ",".join(words),
    }
