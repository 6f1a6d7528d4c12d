"""Jobs, pictures and makers for tests, made up but complete."""

import hashlib
from collections.abc import Sequence
from io import BytesIO

from PIL import Image as Pillow

from jobs.catalog import load_catalog
from jobs.job import ColumnKind, Image, Job, Rows, image_of
from jobs.layout import JobLayout, Unit, layout_of, parse_unit
from jobs.recipe import RecipeRequest
from jobs.records import ImageRecord, LoadTimes, Maker, Picture, ShardTimes, StageTimes
from jobs.rows import Row

MAKER = Maker(
    worker="renderer-1",
    device="cpu",
    torch="2.13.0",
    diffusers="0.42.1",
    fewstep="0.1.0",
    model_sha256="ab" * 32,
    accelerator_sha256="cd" * 32,
)
TIMES = ShardTimes(
    wait_ms=5,
    load_ms=120,
    load=LoadTimes(find_ms=20, base_ms=100),
    device_ms=640,
    encode_ms=8,
    started_ms=1_700_000_001_000,
)


def made_job(
    rows: int = 8,
    *,
    repeats: int = 1,
    shard_images: int = 4,
    columns: dict[str, ColumnKind] | None = None,
) -> Job:
    """An accepted job of the tiny model; its rows are not spooled."""
    return Job(
        id="abcdefghijklmnopqrstuvwxyz",
        tenant="default",
        name="made up",
        recipe=load_catalog().resolve(RecipeRequest()),
        rows=Rows(prefix="x/", count=rows, sha256="0" * 64, columns=columns or {}),
        repeats=repeats,
        seed=7,
        format="png",
        quality=95,
        shard_images=shard_images,
        priority=4,
        submitted_ms=1_700_000_000_000,
        request_sha256="1" * 64,
        fewstep="0.1.0",
    )


def made_layout(job: Job) -> JobLayout:
    """Where that job lies."""
    return layout_of(job, "datasets")


def unit_of(job: Job, name: str) -> Unit:
    """A unit of the job by name."""
    return parse_unit(name, job.shard_images, job.images)


def made_picture(
    job: Job, index: int, *, failed: bool = False, row: Row | None = None, shade: int = 0
) -> Picture:
    """A picture of one colour, or a failed image; `shade` makes other bytes for the same image."""
    image = image_of(job, index, row or Row(prompt=f"prompt «{index}»"))
    key = made_layout(job).sample(index)
    data = b"" if failed else _png(index, shade)
    record = ImageRecord(
        key=key,
        image=index,
        row=image.row_index,
        repeat=image.repeat,
        prompt=image.row.prompt,
        negative_prompt=image.row.negative_prompt,
        seed=image.seed,
        status="failed" if failed else "ok",
        error="not a number" if failed else "",
        file_name="" if failed else f"{key}.png",
        sha256=hashlib.sha256(data).hexdigest() if data else "",
        bytes=len(data),
        tokens_lost=index % 2,
        batch_position=index % job.recipe.batch_images,
        created_ms=1_700_000_002_000 + index,
        times=StageTimes(text_ms=1, denoise_ms=10 + index, decode_ms=4, transfer_ms=1, encode_ms=2),
        recipe=image.row.recipe,
        extra=image.row.extra,
    )
    return Picture(record=record, data=data)


def planned_picture(job: Job, layout: JobLayout, image: Image, *, failed: bool) -> Picture:
    """The made-up picture of an image of the job, or of a later round that `layout` knows."""
    made = made_picture(job, image.index, failed=failed, row=image.row)
    key = layout.sample(image.index)
    news = {
        "key": key,
        "row": image.row_index,
        "repeat": image.repeat,
        "seed": image.seed,
        "file_name": "" if failed else f"{key}.png",
        "error_kind": "nan" if failed else "",
    }
    return made.model_copy(update={"record": made.record.model_copy(update=news)})


def made_pictures(
    job: Job, unit: Unit, *, failed: Sequence[int] = (), shade: int = 0
) -> list[Picture]:
    """The unit's pictures, those in `failed` (global indexes) without data."""
    return [
        made_picture(job, index, failed=index in failed, shade=shade)
        for index in range(unit.first, unit.stop)
    ]


def _png(index: int, shade: int) -> bytes:
    out = BytesIO()
    Pillow.new("RGB", (64, 64), (index % 256, 90, shade)).save(out, "PNG")
    return out.getvalue()
