"""A unit's manifest, `00000_stats.json`: what was committed. Readers trust this alone."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from jobs.coverage import Counts, ValueTally
from jobs.filter_columns import FILTER_MS
from jobs.recipe import Frozen
from jobs.records import ShardTimes
from jobs.setting_tallies import SettingTally
from jobs.shard_row import STAGES, ShardRow

CONTENT_TYPE = "application/json"

#: Each bucket of a tally is 2 % wider than the one before: quantiles are within 1 %.
_GROWTH = 1.02
#: Shorter than this counts as nothing, in milliseconds.
_NOTHING = 1e-3


class Tally(Frozen):
    """Many durations in milliseconds, as counts by logarithmic bucket: small, and they add up."""

    count: int = 0
    sum_ms: float = 0.0
    buckets: dict[int, int] = Field(default_factory=dict)
    nothing: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Tally":
        """The tally of these durations."""
        found = [float(value) for value in values]
        buckets = Counter(_bucket(value) for value in found if value > _NOTHING)
        return cls(
            count=len(found),
            sum_ms=math.fsum(found),
            buckets=dict(sorted(buckets.items())),
            nothing=len(found) - buckets.total(),
        )

    @classmethod
    def total(cls, tallies: Iterable["Tally"]) -> "Tally":
        """One tally of all of them."""
        every = list(tallies)
        buckets: Counter[int] = Counter()
        for one in every:
            buckets.update(one.buckets)
        return cls(
            count=sum(one.count for one in every),
            sum_ms=math.fsum(one.sum_ms for one in every),
            buckets=dict(sorted(buckets.items())),
            nothing=sum(one.nothing for one in every),
        )

    def quantile(self, share: float) -> float | None:
        """The duration that `share` of all do not exceed, within 1 %; None where there is none."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count)) - self.nothing
        if rank <= 0:
            return 0.0
        for bucket, count in sorted(self.buckets.items()):
            rank -= count
            if rank <= 0:
                return float(2 * _GROWTH**bucket / (_GROWTH + 1))
        raise ValueError("the tally's buckets do not add up to its count")


def _bucket(value: float) -> int:
    return math.ceil(math.log(value) / math.log(_GROWTH))


class FileFacts(Frozen):
    """A file of the dataset: its name beside the manifest, and what its bytes are."""

    name: str
    bytes: int
    sha256: str
    etag: str = ""


class Manifest(Frozen):
    """One committed unit: images `first` up to `stop` of the job. Written last."""

    version: Literal[1] = 1
    job: str
    unit: str
    shard: int
    first: int
    stop: int
    count: int
    ok: int
    failed: int
    tar: FileFacts
    parquet: FileFacts
    #: The claim whose tar this is.
    token: str
    worker: str
    #: Crashes of the unit before this claim.
    attempt: int
    #: Whether another claim than the tar's wrote this, from the tar.
    adopted: bool
    #: Its images that were dropped since: they have no row in it any more.
    dropped: tuple[int, ...] = Field(default=(), strict=False)
    #: "ok" and each error, with how many images ended so.
    status_dict: dict[str, int]
    tokens_lost: int
    unet_calls: int
    times: ShardTimes
    #: Of the images that were made: stage -> tally of their milliseconds.
    stages: dict[str, Tally]
    #: Pictures by value of the prompt source's own columns; None in manifests of earlier versions.
    counts: Counts | None = None
    #: Its pictures' settings, where any has others than its job's; None in earlier versions.
    settings: tuple[SettingTally, ...] | None = Field(default=None, strict=False)
    #: Reason -> pictures that were not taken for it: a filter's name, `nan` or `flat`. Each picture
    #: of an image that was tried again counts.
    rejects: dict[str, int] = Field(default_factory=dict)
    #: Filter -> pictures that miss its limit and were kept.
    marks: dict[str, int] = Field(default_factory=dict)
    #: The pictures that filters turned away, in the form of a shard; None: there is none.
    rejected: FileFacts | None = None


def status_dict(rows: Iterable[ShardRow]) -> dict[str, int]:
    """How many images ended in which way."""
    ways = Counter(
        "ok" if row["status"] == "ok" else (row["error"] or "failed")[:200] for row in rows
    )
    return dict(sorted(ways.items()))


def value_counts(rows: Iterable[ShardRow], columns: Iterable[str]) -> Counts:
    """How many pictures there are of each value of these columns."""
    tally = ValueTally(columns)
    for row in rows:
        if row["status"] == "ok":
            tally.add(row)
    return tally.counts()


def stage_tallies(rows: Iterable[ShardRow], upload_ms: float | None) -> dict[str, Tally]:
    """The tally of every stage over the images that were made."""
    made = [row for row in rows if row["status"] == "ok"]
    tallies = {stage: Tally.of(row[stage] for row in made) for stage in STAGES}
    if any(FILTER_MS in row for row in made):
        tallies[FILTER_MS] = Tally.of(row[FILTER_MS] for row in made)
    uploads = [] if upload_ms is None else [upload_ms] * len(made)
    return {**tallies, "upload_ms": Tally.of(uploads)}
