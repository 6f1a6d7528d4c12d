"""`index.json`: the shards that make up a finished dataset. Readers outside trust this."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from jobs.job import Job
from jobs.layout import SPLIT
from jobs.manifest import FileFacts, Manifest
from jobs.recipe import Frozen

_FILE = rf"^({SPLIT}|quarantine)/[0-9][0-9-]*(-r[0-9]{{4}})?\.(tar|parquet)$"


class IndexFile(Frozen):
    """A file by its name from the dataset's root; `sha256` is of its bytes."""

    name: str = Field(pattern=_FILE)
    bytes: int
    sha256: str


class IndexShard(IndexFile):
    """A shard's tar, what it counts, and its parquet file.

    Images `first` up to `stop`; in a later round these are places in the dataset's numbering, and
    the parquet file's column `image` says which images they are.
    """

    first: int
    stop: int
    count: int
    ok: int
    failed: int
    #: 0: the job's own; 1: of the first retry.
    round: int = 0
    parquet: IndexFile

    @property
    def stats(self) -> str:
        """The name of its manifest."""
        return f"{self.name.removesuffix('.tar')}_stats.json"


class DatasetIndex(Frozen):
    """Every shard of a job that has ended, in the order of its images."""

    version: Literal[1] = 1
    job: str
    #: Whether every image is accounted for: false where the job was cancelled or stopped.
    complete: bool = True
    images: int
    ok: int
    failed: int
    #: Images that were taken out: no shard has a row of them.
    dropped: int = 0
    #: Rows of its prompt sources, with those that were added; None in indexes of earlier versions.
    rows: int | None = None
    shards: tuple[IndexShard, ...] = Field(strict=False)
    #: A row for every image without a picture, and why; no file where there is none. And the
    #: pictures that filters turned away, a tar for each shard that has some.
    quarantine: tuple[IndexFile, ...] = Field(default=(), strict=False)
    #: Of a job that wants so many accepted pictures of each row: the rows that have fewer.
    rows_short: int | None = None
    #: Of a job that looks for near-duplicates: pictures that resemble an earlier one
    #: (`duplicates.parquet`).
    duplicates: int | None = None
    #: Reason -> pictures that were not taken for it, and filter -> pictures kept with a mark.
    rejects: dict[str, int] = Field(default_factory=dict)
    marks: dict[str, int] = Field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all tars and parquet files."""
        return sum(shard.bytes + shard.parquet.bytes for shard in self.shards)


def rejected_files(manifests: Iterable[Manifest]) -> tuple[IndexFile, ...]:
    """The tars of pictures that filters turned away."""
    return tuple(
        IndexFile(
            name=f"quarantine/{one.rejected.name}",
            bytes=one.rejected.bytes,
            sha256=one.rejected.sha256,
        )
        for one in manifests
        if one.rejected
    )


def cover(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The manifests that make up the dataset: a whole shard rather than its parts.

    Both may exist where a claim that was believed dead committed after its unit was split; so may
    parts of two splits, whose bounds need not meet. Chosen are those that together have the most
    images, and of such choices the one with the fewest manifests.
    """
    ordered = sorted(manifests, key=lambda one: (one.stop, one.first))
    stops = [one.stop for one in ordered]
    # By how many of them are looked at: images and, less is more, manifests of the best choice.
    best: list[tuple[int, int]] = [(0, 0)]
    for number, one in enumerate(ordered):
        before = bisect_right(stops, one.first, hi=number)
        images, count = best[before]
        best.append(max(best[-1], (images + one.stop - one.first, count - 1)))
    chosen: list[Manifest] = []
    number = len(ordered)
    while number:
        if best[number] == best[number - 1]:
            number -= 1
            continue
        chosen.append(ordered[number - 1])
        number = bisect_right(stops, ordered[number - 1].first, hi=number - 1)
    return chosen[::-1]


def gaps(chosen: Sequence[Manifest], stop: int, first: int = 0) -> list[tuple[int, int]]:
    """The runs of places from `first` up to `stop` that no manifest of an ordered cover has."""
    found: list[tuple[int, int]] = []
    at = first
    for one in chosen:
        if one.first > at:
            found.append((at, one.first))
        at = one.stop
    return [*found, (at, stop)] if at < stop else found


def index_of(
    job: Job,
    rounds: Sequence[Sequence[Manifest]],
    *,
    failed: int,
    missing: int = 0,
    complete: bool = True,
    quarantine: tuple[IndexFile, ...] = (),
    rows_short: int | None = None,
    duplicates: int | None = None,
) -> DatasetIndex:
    """The index of ordered covers, the job's own and those of later rounds.

    `failed`: images without a picture after all of them; `missing`: those that none has. The rest
    was dropped.
    """
    shards = [_shard(one, number) for number, some in enumerate(rounds) for one in some]
    made = sum(shard.ok for shard in shards)
    return DatasetIndex(
        job=job.id,
        complete=complete,
        images=job.images,
        ok=made,
        failed=failed,
        dropped=max(0, job.images - missing - made - failed),
        rows=job.rows.count,
        shards=tuple(shards),
        quarantine=quarantine,
        rows_short=rows_short,
        duplicates=duplicates,
        rejects=_added(one.rejects for some in rounds for one in some),
        marks=_added(one.marks for some in rounds for one in some),
    )


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _shard(one: Manifest, number: int) -> IndexShard:
    return IndexShard(
        **_file(one.tar).model_dump(),
        first=one.first,
        stop=one.stop,
        count=one.count,
        ok=one.ok,
        failed=one.failed,
        round=number,
        parquet=_file(one.parquet),
    )


def _file(facts: FileFacts) -> IndexFile:
    return IndexFile(name=f"{SPLIT}/{facts.name}", bytes=facts.bytes, sha256=facts.sha256)
