"""Images that were given up because processes died on them: failed rows of the dataset."""

from collections.abc import Mapping
from importlib import metadata

from jobs.commit import adopt_unit, commit_unit
from jobs.errors import LeaseLost
from jobs.job import Image, Job
from jobs.layout import JobLayout, Unit
from jobs.records import ImageRecord, Maker, Picture, ShardTimes
from jobs.rounds import Accepted, unit_images
from jobs.spool import RowPages
from jobs.store import Store

#: The token of the last word on an image that no renderer will be given again.
TOKEN = "given-up"


class _LastWord:
    """Nobody else writes these units: the queue has closed them."""

    def win(self, job_id: str, unit: str, token: str, /) -> str:
        """Always us."""
        return TOKEN


def commit_given_up(
    store: Store, accepted: Accepted, layout: JobLayout, dead: Mapping[str, str], deaths: int
) -> int:
    """Write a unit of failed rows for each range of `dead` ("first-stop" -> why); how many images.

    `deaths`: how many processes died on each of them alone.
    Idempotent. A renderer that was believed dead and finished such a unit after all keeps its
    picture: its tar was there first, and is adopted.
    """
    job, images, read = accepted.job, 0, RowPages(store).rows
    for name, why in sorted(dead.items()):
        first, stop = (int(part) for part in name.split("-"))
        unit, found = unit_images(accepted, _unit_name(accepted, first, stop), read, store)
        names = layout.for_unit(unit)
        pictures = [_lost(job, names, image, why, deaths) for image in found]
        last_word, times = _LastWord(), ShardTimes(started_ms=job.submitted_ms)
        try:
            commit_unit(store, last_word, job, layout, unit, TOKEN, 0, pictures, _maker(), times)
        except LeaseLost:
            adopt_unit(store, last_word, job, layout, unit, TOKEN, 0)
        images += stop - first
    return images


def _unit_name(accepted: Accepted, first: int, stop: int) -> str:
    """The queue's name of a unit by its first and last place there."""
    size = accepted.job.shard_images
    shard = first // size
    end = min((shard + 1) * size, (accepted.again or accepted.job).images)
    whole = (first, stop) == (shard * size, end)
    return Unit(shard=shard, first=first, stop=stop, whole=whole).name


def _lost(job: Job, layout: JobLayout, image: Image, why: str, deaths: int) -> Picture:
    row = image.row
    return Picture(
        record=ImageRecord(
            key=layout.sample(image.index),
            image=image.index,
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
            recipe=row.recipe,
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
