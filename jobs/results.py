"""What a finished job left in the store: its files, its timing, and how it ended."""

from collections.abc import Hashable, Mapping
from functools import lru_cache
from itertools import islice

from pydantic import Field, ValidationError

from jobs.dataset_index import DatasetIndex
from jobs.errors import DamagedJob, NotFound
from jobs.layout import JobLayout
from jobs.recipe import Frozen
from jobs.states import JobState
from jobs.store import Store
from jobs.timing import Timing

#: How long the links of an answer work, in seconds.
LINK_S = 900
#: Datasets whose digests are kept in memory: pages of one follow each other.
DIGESTS_KEPT = 2


class ResultFile(Frozen):
    """A file of the dataset. `sha256` is empty for the few that the index does not list."""

    name: str = Field(description="Its path in the dataset", examples=["train/00000.tar"])
    key: str = Field(description="Its key in the bucket")
    bytes: int
    sha256: str
    link: str = Field(
        repr=False,
        description="Reads the file without keys for 15 minutes: treat it as a secret",
    )


class Results(Frozen):
    """A finished dataset and a page of its files, in the order of their names."""

    id: str
    bucket: str
    prefix: str
    uri: str = Field(examples=["s3://fewstep/datasets/default/mfzwiztbonsgmylkmjvgqzdtmi/"])
    complete: bool = Field(description="Whether `_SUCCESS` is there: every image is accounted for")
    files: tuple[ResultFile, ...] = Field(strict=False)
    next: int | None = Field(description="`first` of the next page; null: this was the last")
    after: str | None = Field(
        default=None,
        description="`after` of the next page, which costs the same however many files are before "
        "it; null: this was the last",
    )


class Ended(Frozen):
    """What the store tells of a job's end; times in milliseconds since 1970 (UTC)."""

    state: JobState
    reason: str = ""
    done: int = 0
    failed: int = 0
    started_ms: int | None = None
    finished_ms: int | None = None
    images_per_second: float | None = None
    #: What it spent of devices until then, as the queue counted it.
    device_ms: int | None = None
    #: Whether what was done was deleted with it.
    deleted: bool = False
    #: Of a later round: the queue had no room for it, and its key may be sent again.
    refused: bool = False


def results_of(
    store: Store, layout: JobLayout, *, first: int = 0, limit: int = 1_000, after: str = ""
) -> Results:
    """Files `first` up to `first + limit` of a job's folder, of those behind the name `after`, with
    links."""
    files_there = store.list(layout.root, after=f"{layout.root}{after}" if after else "")
    # One more than the page, to know whether another follows.
    found = list(islice(files_there, first, first + limit + 1))
    shown, more = found[:limit], len(found) > limit
    digests = _digests(store, layout)
    files = tuple(
        ResultFile(
            name=one.key.removeprefix(layout.root),
            key=one.key,
            bytes=one.bytes,
            sha256=digests.get(one.key.removeprefix(layout.root), ""),
            link=store.presign(one.key, LINK_S),
        )
        for one in shown
    )
    return Results(
        id=layout.job_id,
        bucket=store.bucket,
        prefix=layout.root,
        uri=f"s3://{store.bucket}/{layout.root}",
        complete=store.head(layout.success) is not None,
        files=files,
        next=first + limit if more else None,
        after=files[-1].name if more else None,
    )


def read_timing(store: Store, layout: JobLayout) -> Timing:
    """`timing.json`; raises NotFound where the job ended without one."""
    try:
        return Timing.model_validate_json(store.get(layout.timing))
    except NotFound as error:
        raise NotFound(
            "the job has no timing",
            where=layout.job_id,
            remedy="only a job that is done has one; the parquet files have each image's",
        ) from error
    except ValidationError as error:
        raise _damaged(layout.timing, error) from error


def outcome_of(store: Store, layout: JobLayout) -> Ended:
    """What is known of a job that the queue has forgotten, or was never told of."""
    if store.head(layout.success) is None:
        return _unfinished(store, layout.outcome)
    timing = read_timing(store, layout)
    return Ended(
        state=JobState.DONE,
        done=timing.ok,
        failed=timing.failed,
        started_ms=timing.started_ms,
        finished_ms=timing.finished_ms,
        images_per_second=timing.images_per_second,
    )


def write_outcome(store: Store, layout: JobLayout, ended: Ended, number: int = 0) -> None:
    """Note in the store how a job ended that was cancelled or failed, or how its later round
    `number` ended; to be written before the queue forgets it."""
    data = ended.model_dump_json(indent=1).encode()
    key = layout.round_ended(number) if number else layout.outcome
    store.put(key, data, content_type="application/json")


def round_outcome(store: Store, layout: JobLayout, number: int) -> Ended:
    """How a later round ended, or that it has not."""
    return _unfinished(store, layout.round_ended(number))


def _unfinished(store: Store, key: str) -> Ended:
    try:
        return Ended.model_validate_json(store.get(key))
    except NotFound:
        return Ended(
            state=JobState.WAITING,
            reason="the queue does not know it: send the submission again with its key",
        )
    except ValidationError as error:
        raise _damaged(key, error) from error


def _digests(store: Store, layout: JobLayout) -> Mapping[str, str]:
    """Name -> sha256 of the files that the index lists; none where there is no index."""
    found = store.head(layout.index)
    if found is None:
        return {}
    return _digests_of(store, layout.index, (found.etag, found.modified_ms))


@lru_cache(DIGESTS_KEPT)
def _digests_of(store: Store, key: str, _version: Hashable) -> Mapping[str, str]:
    try:
        index = DatasetIndex.model_validate_json(store.get(key))
    except ValidationError as error:
        raise _damaged(key, error) from error
    files = [file for shard in index.shards for file in (shard, shard.parquet)]
    return {file.name: file.sha256 for file in (*files, *index.quarantine)}


def _damaged(key: str, error: ValidationError) -> DamagedJob:
    return DamagedJob(
        f"the file does not read as what it is: {error.errors()[0]['msg']}",
        where=key,
        remedy="it was written by another version, or changed by hand",
    )
