"""Coverage of a job while it runs: each manifest is read once, and only new ones are looked for."""

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from pydantic import ValidationError

from jobs.covered import Coverage, Expected, Tallied, expected_of
from jobs.dataset_index import cover
from jobs.discard import shard_number
from jobs.errors import NotFound
from jobs.extent import Extent, own_block
from jobs.items import manifest_keys
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.rounds import Round, read_extent, rounds_of
from jobs.store import Store

#: Manifests that are read for one look; what is left comes with the next one.
MANIFESTS = 400
#: Jobs whose sums are kept in memory.
JOBS_KEPT = 64
_READERS = 16
#: Names of shards in one page of a listing: three files each.
_PAGE_SHARDS = 333


class Counting:
    """The coverage of jobs, kept up to date as it is asked for. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._jobs: OrderedDict[tuple[str, bool], _Counted] = OrderedDict()

    def look(self, layout: JobLayout, job: Job, news: object, *, ended: bool) -> Coverage:
        """The coverage of a job with all its rounds.

        `news` differs whenever more is committed than at the look before; None: nobody knows.
        `ended`: neither the job nor a round of it is at work. Raises Unreachable.
        """
        if ended and (found := read_coverage(self._store, layout)) is not None:
            return found
        # Anew once it has ended: its shards may have been deleted with it.
        with self._lock:
            key = (layout.root, ended)
            counted = self._jobs.setdefault(key, _Counted(self._store, layout, job))
            self._jobs.move_to_end(key)
            while len(self._jobs) > JOBS_KEPT:
                self._jobs.popitem(last=False)
        return counted.look(news)


def read_coverage(store: Store, layout: JobLayout) -> Coverage | None:
    """What was written when the job, or its latest round, ended; None: nothing that reads so."""
    try:
        return Coverage.model_validate_json(store.get(layout.coverage))
    except (NotFound, ValidationError):
        return None


class _Counted:
    """One job's sums, and which of its shards are in them."""

    def __init__(self, store: Store, layout: JobLayout, job: Job) -> None:
        self._store, self._layout, self._job = store, layout, job
        self._lock = threading.Lock()
        self._extent = Extent(job, [own_block(job)])
        self._expected, self._known = Expected(), False
        self._rounds: list[Round] = []
        self._news: object = None
        #: All shards below `_low`, and those in `_done`, are whole and in the sums.
        self._tallied = Tallied()
        self._low = 0
        self._done: set[int] = set()
        #: Shards of which a part is there: key -> manifest.
        self._partly: dict[int, dict[str, Manifest]] = {}
        #: Rounds after which shards in the sums are others, or gone.
        self._undone: set[int] = set()

    def look(self, news: object) -> Coverage:
        """The coverage now."""
        with self._lock:
            if news is None or news != self._news:
                self._news = news if self._refresh() else None
            parts = [one for some in self._partly.values() for one in cover(some.values())]
            images, expected = self._extent.images, self._expected
            return self._tallied.with_more(parts).coverage(self._job, images, expected)

    def _refresh(self) -> bool:
        """Read manifests that are new, up to a bound; whether that was all."""
        self._rounds = rounds_of(self._store, self._layout)
        extent = read_extent(self._store, self._layout, self._job, self._rounds)
        if extent.blocks != self._extent.blocks or not self._known:
            self._expected = expected_of(self._store, self._layout, extent)
            self._extent, self._known = extent, True
        self._forget_undone(extent)
        stop = self._rounds[-1].stop_shard if self._rounds else self._job.shards
        keys = (
            key
            for run in self._open_runs(stop)
            for key in manifest_keys(self._store, self._layout, run)
            if self._is_new(key)
        )
        wanted = list(islice(keys, MANIFESTS + 1))
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(self._read, wanted[:MANIFESTS]))
        for key, manifest in zip(wanted, found, strict=False):
            if manifest is not None:
                self._partly.setdefault(manifest.shard, {})[key] = manifest
        for shard in sorted(self._partly):
            self._close(shard)
        while self._low in self._done:
            self._done.remove(self._low)
            self._low += 1
        return len(wanted) <= MANIFESTS

    def _forget_undone(self, extent: Extent) -> None:
        """Begin anew after a drop, its undoing, or an extension that was deleted."""
        undone = {
            one.number
            for one in self._rounds
            if not one.renders or (one.block and one.block not in extent.blocks)
        }
        if undone != self._undone:
            self._undone, self._tallied = undone, Tallied()
            self._low, self._done, self._partly = 0, set(), {}

    def _open_runs(self, stop: int) -> list[range]:
        """The shards to look for: each gap by itself, or all at once where that asks less."""
        runs, first = list[range](), self._low
        for shard in sorted(self._done):
            if shard > first:
                runs.append(range(first, shard))
            first = shard + 1
        behind = [range(first, stop)] if first < stop else []
        if len(runs) > 1 + (first - self._low) // _PAGE_SHARDS:
            return [range(self._low, stop)]
        return runs + behind

    def _is_new(self, key: str) -> bool:
        shard = shard_number(key.removeprefix(self._layout.shards))
        if shard is None or shard < self._low or shard in self._done:
            return False
        return key not in self._partly.get(shard, {})

    def _read(self, key: str) -> Manifest | None:
        try:
            return Manifest.model_validate_json(self._store.get(key))
        except NotFound:
            # A stray that was removed since it was listed.
            return None

    def _close(self, shard: int) -> None:
        """Add a shard to the sums for good once all its images are accounted for."""
        chosen = cover(self._partly[shard].values())
        # Not by their counts: what was dropped of a shard is in none.
        if sum(one.stop - one.first for one in chosen) == self._size(shard):
            self._tallied.add(chosen)
            self._done.add(shard)
            del self._partly[shard]

    def _size(self, shard: int) -> int:
        job = self._job
        if shard < job.shards:
            return min(job.shard_images, job.images - shard * job.shard_images)
        for one in self._rounds:
            if shard < one.stop_shard:
                place = shard - one.first_shard
                return min(one.shard_images, one.images - place * one.shard_images)
        return 0
