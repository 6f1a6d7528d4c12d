"""Gathering: which shards make up a dataset, round by round, and which images they leave out."""

import io
from bisect import bisect_left
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from jobs.dataset_index import DatasetIndex, cover, gaps
from jobs.errors import FewstepError, NotFound
from jobs.job import Job
from jobs.layout import SPLIT, JobLayout
from jobs.manifest import Manifest
from jobs.rewriting import plain_stem
from jobs.rounds import Round, withdrawn
from jobs.store import Store

#: Manifests read at a time.
_READERS = 16


@dataclass(frozen=True, slots=True)
class Gathered:
    """The shards of a dataset, and what is not in them."""

    #: The manifests of the job's own shards, then those of each later round, in order.
    rounds: list[list[Manifest]]
    #: Runs of images, first and stop, of which no round has a row.
    missing: list[tuple[int, int]]
    #: Images that a retry made.
    made: set[int] = field(default_factory=set)
    #: Names of the tars that an index had listed before: their pictures have been given out.
    settled: Set[str] = frozenset()

    @property
    def every(self) -> list[Manifest]:
        """All of them."""
        return [one for some in self.rounds for one in some]

    def is_new(self, manifest: Manifest) -> bool:
        """Whether no index has listed a shard before."""
        return f"{SPLIT}/{manifest.tar.name}" not in self.settled


def gather(
    store: Store,
    layout: JobLayout,
    job: Job,
    later: Sequence[Round] = (),
    names: Set[str] | None = None,
) -> Gathered:
    """The shards that count; raises FewstepError where a manifest is of another job.

    `names`: the names of their tars, where they are known.
    """
    found = _manifests(store, layout, job)
    settled = _index_names(store, layout) if names is None else names
    if names is None:
        found = _current(found, settled)
    else:
        found = [one for one in found if f"{SPLIT}/{one.tar.name}" in names]
    own = [one for one in found if one.shard < job.shards]
    rounds = [own, *([one for one in found if again.holds(one)] for again in later)]
    if later and names is None:
        # Rounds that had ended are what their index said: who commits to them now is a renderer
        # that was believed dead, and its images may have been made again since.
        rounds[:-1] = [
            [one for one in some if f"{SPLIT}/{one.tar.name}" in settled] for some in rounds[:-1]
        ]
    covers = [cover(some) for some in rounds]
    missing = gaps(covers[0], job.images)
    for again, some in zip(later, covers[1:], strict=True):
        missing += _gaps_of(store, layout, again, some)
    made, tried = set[int](), set[int]()
    retried = [some for again, some in zip(later, covers[1:], strict=True) if not again.block]
    for image, ok in _tries(store, layout, [one for some in retried for one in some]):
        tried.add(image)
        if ok:
            made.add(image)
    tried |= {image for some in retried for one in some for image in one.dropped}
    missing = list(_without(missing, tried)) if tried else missing
    return Gathered(covers, missing, made, settled)


def _gaps_of(
    store: Store, layout: JobLayout, again: Round, chosen: Sequence[Manifest]
) -> list[tuple[int, int]]:
    """The runs of images that an extension was to make and did not; none of a retry."""
    if again.block is None or withdrawn(store, layout, again):
        return []
    first = again.first_place
    runs = gaps(chosen, first + again.images, first)
    at = again.block.image_at
    return [(at(begin), at(begin) + stop - begin) for begin, stop in runs]


def read_tries(store: Store, layout: JobLayout, manifest: Manifest) -> list[tuple[int, bool]]:
    """The images of a unit, and whether there is a picture of each."""
    data = io.BytesIO(store.get(layout.shards + manifest.parquet.name))
    table = pq.read_table(data, columns=["image", "status"]).to_pydict()
    return [(i, s == "ok") for i, s in zip(table["image"], table["status"], strict=True)]


def _tries(
    store: Store, layout: JobLayout, manifests: Sequence[Manifest]
) -> Iterator[tuple[int, bool]]:
    with ThreadPoolExecutor(_READERS) as readers:
        for some in readers.map(lambda one: read_tries(store, layout, one), manifests):
            yield from some


def _manifests(store: Store, layout: JobLayout, job: Job) -> list[Manifest]:
    keys = [found.key for found in store.list(layout.shards) if found.key.endswith("_stats.json")]
    with ThreadPoolExecutor(_READERS) as readers:
        found = [Manifest.model_validate_json(data) for data in readers.map(store.get, keys)]
    for key, one in zip(keys, found, strict=True):
        own = one.stop <= job.images or one.shard >= job.shards
        if one.job != job.id or not own or not 0 <= one.first < one.stop:
            raise FewstepError("this manifest is not of this job", where=key)
    return found


def _current(found: Sequence[Manifest], names: Set[str]) -> list[Manifest]:
    """Of what was written anew, what the index lists; else what its claim had committed.

    Both lie there where whoever wrote it anew died before the index, or right after it.
    """
    listed = {plain_stem(_stem(name)): name for name in names}
    return [
        one
        for one in found
        if listed.get(plain := plain_stem(_stem(one.tar.name)), f"{SPLIT}/{plain}.tar")
        == f"{SPLIT}/{one.tar.name}"
    ]


def _stem(name: str) -> str:
    return name.removeprefix(f"{SPLIT}/").removesuffix(".tar")


def _index_names(store: Store, layout: JobLayout) -> set[str]:
    try:
        index = DatasetIndex.model_validate_json(store.get(layout.index))
    except NotFound:
        # It ended before anything was committed.
        return set()
    return {shard.name for shard in index.shards}


def _without(runs: Sequence[tuple[int, int]], images: set[int]) -> Iterator[tuple[int, int]]:
    """The runs less some images."""
    ordered = sorted(images)
    for first, stop in runs:
        begin = first
        for image in ordered[bisect_left(ordered, first) : bisect_left(ordered, stop)]:
            if image > begin:
                yield begin, image
            begin = image + 1
        if begin < stop:
            yield begin, stop
