"""The committed shards of a job, page by page: what each holds and how it came about."""

from collections import Counter
from itertools import groupby

from pydantic import Field

from jobs.items import manifests_of
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.recipe import Frozen
from jobs.rounds import rounds_of
from jobs.store import Store

#: Shards on one page at most.
MOST = 200


class ShardFacts(Frozen):
    """What is committed of one shard."""

    shard: int = Field(description="Its number in the dataset", examples=[17])
    files: tuple[str, ...] = Field(
        strict=False, description="Names of its tars: one, or one for each part of a split shard"
    )
    images: int = Field(description="That are accounted for")
    ok: int = Field(description="Pictures")
    failed: int
    bytes: int = Field(description="Of its tars")
    workers: tuple[str, ...] = Field(strict=False, description="The renderers that made it")
    finished_ms: int = Field(description="When its last part was committed")
    errors: dict[str, int] = Field(description="Error -> images that ended with it")


class ShardPage(Frozen):
    """Shards in their order; those that are not committed yet are left out."""

    shards: tuple[ShardFacts, ...] = Field(strict=False)
    next: int | None = Field(description="`first` of the next page; null: this was the last")


def shard_page(store: Store, layout: JobLayout, job: Job, *, first: int, limit: int) -> ShardPage:
    """What is committed of shards `first` up to `first + limit`. Raises Unreachable."""
    rounds = rounds_of(store, layout)
    shards = rounds[-1].stop_shard if rounds else job.shards
    stop = min(first + limit, shards)
    found = manifests_of(store, layout, range(first, stop)) if first < stop else []
    return ShardPage(
        shards=tuple(
            _facts(shard, list(some)) for shard, some in groupby(found, key=lambda one: one.shard)
        ),
        next=stop if stop < shards else None,
    )


def _facts(shard: int, units: list[Manifest]) -> ShardFacts:
    errors: Counter[str] = Counter()
    for one in units:
        errors.update({why: n for why, n in one.status_dict.items() if why != "ok"})
    return ShardFacts(
        shard=shard,
        files=tuple(one.tar.name for one in units),
        images=sum(one.count for one in units),
        ok=sum(one.ok for one in units),
        failed=sum(one.failed for one in units),
        bytes=sum(one.tar.bytes for one in units),
        workers=tuple(dict.fromkeys(one.worker for one in units)),
        finished_ms=max(one.times.finished_ms for one in units),
        errors=dict(errors),
    )
