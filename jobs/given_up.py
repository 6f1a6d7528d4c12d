"""Images that were given up because processes died on them: failed rows of the dataset."""

from collections.abc import Mapping
from importlib import metadata

from jobs.commit import adopt_unit, commit_unit
from jobs.errors import LeaseLost
from jobs.job import Job, image_of
from jobs.layout import JobLayout, Unit
from jobs.records import ImageRecord, Maker, Picture, ShardTimes
from jobs.spool import fetch_rows
from jobs.store import Store

#: The token of the last word on an image that no renderer will be given again.
TOKEN = "given-up"


class _LastWord:
    """Nobody else writes these units: the queue has closed them."""

    def win(self, job_id: str, unit: str, token: str, /) -> str:
        """Always us."""
        return TOKEN


def commit_given_up(
    store: Store, job: Job, layout: JobLayout, dead: Mapping[str, str], deaths: int
) -> int:
    """Write a unit of failed rows for each range of `dead` ("first-stop" -> why); how many images.

    `deaths`: how many processes died on each of them alone.
    Idempotent. A renderer that was believed dead and finished such a unit after all keeps its
    picture: its tar was there first, and is adopted.
    """
    images = 0
    for name, why in sorted(dead.items()):
        first, stop = (int(part) for part in name.split("-"))
        unit = _unit(job, first, stop)
        pictures = [_lost(store, job, layout, index, why, deaths) for index in range(first, stop)]
        last_word, times = _LastWord(), ShardTimes(started_ms=job.submitted_ms)
        try:
            commit_unit(store, last_word, job, layout, unit, TOKEN, 0, pictures, _maker(), times)
        except LeaseLost:
            adopt_unit(store, last_word, job, layout, unit, TOKEN, 0)
        images += stop - first
    return images


def _unit(job: Job, first: int, stop: int) -> Unit:
    shard = first // job.shard_images
    start = shard * job.shard_images
    whole = first == start and stop == min(start + job.shard_images, job.images)
    return Unit(shard=shard, first=first, stop=stop, whole=whole)


def _lost(store: Store, job: Job, layout: JobLayout, index: int, why: str, deaths: int) -> Picture:
    row = fetch_rows(store, job, index // job.repeats, index // job.repeats + 1)[0]
    image = image_of(job, index, row)
    return Picture(
        record=ImageRecord(
            key=layout.sample(index),
            image=index,
            row=image.row_index,
            repeat=image.repeat,
            prompt=row.prompt,
            negative_prompt=row.negative_prompt,
            seed=image.seed,
            status="failed",
            error=f"given up: renderers died on it ({why})"[:500],
            error_kind="died",
            attempt=deaths,
            # No clock: whoever writes this again writes the same bytes.
            created_ms=job.submitted_ms,
            extra=row.extra,
        )
    )


def _maker() -> Maker:
    return Maker(
        worker="scheduler",
        device="",
        torch="",
        diffusers="",
        fewstep=metadata.version("fewstep"),
        model_sha256="",
    )
