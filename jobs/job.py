"""The job: a prompt source x a recipe x an output, immutable once accepted."""

import base64
import hashlib
from typing import Any, Literal

from pydantic import Field, field_validator

from jobs import error_budget
from jobs.budget import Budget
from jobs.filter_columns import filter_columns
from jobs.filters import JobFilter, Wishes
from jobs.recipe import Frozen, Name, Recipe, RecipeRequest
from jobs.rows import Row
from jobs.seeds import MAX_SEED, image_seed, later_seed, repeat_seed
from jobs.sources.reading import Reading
from jobs.templates.expansion import Expansion

#: Keys inside a shard have four digits, shards five (more where a job needs more).
MAX_SHARD_IMAGES = 10_000
MAX_SHARDS = 8_000_000
#: Rows in one spooled page: a renderer fetches the pages its shard touches.
PAGE_ROWS = 1_000
#: Pictures of a job that may also be objects of their own: each is a request, and is paid for.
MAX_OBJECTS = 10_000

ImageFormat = Literal["png", "jpeg", "webp"]
#: `webdataset`: pictures lie in their shards' tars. And once more: `objects` one by one,
#: `imagefolder` in folders with their rows, `parquet` in tables with their rows.
Output = Literal["webdataset", "objects", "imagefolder", "parquet"]
ColumnKind = Literal["bool", "int", "float", "string"]


class JobRequest(Budget, Wishes):
    """What a user submits beside the prompts."""

    recipe: RecipeRequest = RecipeRequest()
    #: Shown in lists and terminals, so no control characters.
    name: str = Field(default="", max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    #: Fixes every image's seed; None: drawn at submission and written into the job.
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    format: ImageFormat = "png"
    #: For JPEG and WebP, 1 to 100. WebP at 100 is lossless.
    quality: int = Field(default=95, ge=1, le=100)
    #: `objects` and `imagefolder`: for jobs of up to `MAX_OBJECTS`.
    output: Output = "webdataset"
    #: Of `imagefolder` and `parquet`: the share of prompts whose pictures are for validation, and
    #: pixels of the longer side of thumbnails.
    validation: float = Field(default=0.0, ge=0.0, le=0.5)
    thumbnails: int | None = Field(default=None, ge=16, le=1024)
    #: None: chosen so that a job makes about sixteen shards, of whole batches, up to 1000.
    shard_images: int | None = Field(default=None, ge=1, le=MAX_SHARD_IMAGES)
    #: 0 to 9; 9 is served first.
    priority: int = Field(default=4, ge=0, le=9)
    #: Images that may fail before the job is stopped: a whole number of them, or a share of all
    #: below 1 (0.05: one in twenty). None: half of them, but never fewer than 1,000.
    max_failed_rows: int | float | None = None
    #: How the prompt file is read: which column is what, and what becomes of bad rows.
    source: Reading = Reading()
    #: The prompts are templates, and become rows like this; None: they are taken as they are.
    expand: Expansion | None = None

    @field_validator("max_failed_rows", mode="before")
    @classmethod
    def _number_or_share(cls, value: object) -> object:
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**13
        if value is None or whole or (isinstance(value, float) and 0 < value < 1):
            return value
        raise ValueError("a whole number of images, or a share above 0 and below 1")

    def failures(self, images: int) -> dict[str, Any]:
        """What stands in the job of how many of so many images may fail."""
        asked, turns_away = self.max_failed_rows, self.turns_away
        return {
            "max_failed_rows": error_budget.limit_of(asked, images, turns_away=turns_away),
            "failed_share": error_budget.share_of(asked, turns_away=turns_away),
        }


class ExtensionRequest(Frozen):
    """What is to be added to a dataset beside prompts, which are rows of it then."""

    #: So many more images of every row.
    repeats: int = Field(default=0, ge=0, le=100_000)
    #: How a prompt file is read.
    source: Reading = Reading()
    #: The prompts are templates, as those of a job may be.
    expand: Expansion | None = None


class Rows(Frozen):
    """Where a job's rows were spooled, as JSONL pages of `PAGE_ROWS` rows, or as one template."""

    prefix: str
    count: int
    sha256: str
    #: Pass-through columns and the narrowest kind that holds all their values.
    columns: dict[str, ColumnKind] = Field(default_factory=dict)
    #: Whether it is a template: then a row is a function of its number, and none is written.
    template: bool = False
    #: Rows of the source that were left out: `rejected.jsonl` beside the pages says which, and why.
    rejected: int = 0
    #: Different settings that rows have of their own, counted up to 10,000; 0: they have none.
    recipes: int = 0
    #: Device time of the images over that of as many of the job's own recipe.
    cost: float = 1.0


class Job(Budget):
    """An accepted job, as `job.json` holds it. Times are milliseconds since 1970 (UTC)."""

    id: str
    tenant: str
    name: str
    recipe: Recipe
    rows: Rows
    repeats: int
    seed: int
    format: ImageFormat
    quality: int
    output: Output = "webdataset"
    validation: float = 0.0
    thumbnails: int | None = None
    shard_images: int
    priority: int
    #: Images that may fail before it is stopped, as it was accepted; None: any number.
    max_failed_rows: int | None = None
    #: The share of them where one was asked for; None: their number stays.
    failed_share: float | None = None
    filters: tuple[JobFilter, ...] = Field(default=(), strict=False)
    max_tries: int = 1
    #: Pictures of each row that were to pass; None: that was not asked for.
    accept: int | None = None
    submitted_ms: int
    #: Digest of request and rows: the same key with another digest is a conflict.
    request_sha256: str
    warnings: tuple[str, ...] = Field(default=(), strict=False)
    fewstep: str

    @property
    def columns(self) -> dict[str, ColumnKind]:
        """The columns of its rows beside those of every job: its filters', then its source's."""
        return {**filter_columns(self.filters), **self.rows.columns}

    @property
    def images(self) -> int:
        """How many pictures the job makes: rows x repeats."""
        return self.rows.count * self.repeats

    @property
    def shards(self) -> int:
        """How many shards they are written in."""
        return -(-self.images // self.shard_images)

    def failed_limit(self, images: int) -> int | None:
        """How many may fail once so many images are let through; None: any number."""
        return error_budget.raised(self.max_failed_rows, self.failed_share, images)


class Image(Frozen):
    """One picture to make: global index, its row and repeat, its seed."""

    index: int
    row_index: int
    repeat: int
    seed: int
    row: Row
    #: Which seed of its sequence this is: 0 the first, later ones where filters had it tried again.
    seed_try: int = 0


def image_of(job: Job, index: int, row: Row) -> Image:
    """The image with global index `index`; `row` must be row `index // repeats`."""
    return image_at(job, index, *divmod(index, job.repeats), row)


def image_at(job: Job, index: int, row_index: int, repeat: int, row: Row) -> Image:
    """The image with global index `index`, which is that repeat of that row."""
    if row.seed is None:
        seed = image_seed(job.seed, row_index, repeat)
    else:
        seed = repeat_seed(row.seed, repeat)
    return Image(index=index, row_index=row_index, repeat=repeat, seed=seed, row=row)


def with_try(job: Job, image: Image, number: int) -> Image:
    """The image with seed `number` (1, 2, ...) of its sequence."""
    seed = later_seed(job.seed, image.row_index, image.repeat, number)
    return image.model_copy(update={"seed": seed, "seed_try": number})


def choose_shard_images(images: int, batch_images: int) -> int:
    """About sixteen shards, each of whole batches, at most 1000 images."""
    batches = max(1, -(-images // (16 * batch_images)))
    return min(batches * batch_images, max(batch_images, 1000 // batch_images * batch_images))


def job_id(tenant: str, idempotency_key: str) -> str:
    """The job's id: the same key of the same tenant is the same job."""
    digest = hashlib.sha256(f"{tenant}|{idempotency_key}".encode()).digest()
    return base64.b32encode(digest).decode().lower()[:26]


class Submission(Frozen):
    """What the API answers to a submission."""

    id: str
    created: bool
    images: int
    shards: int
    warnings: tuple[str, ...] = Field(default=(), strict=False)
    relative_cost: float = Field(
        default=1.0,
        description="Device time of its images over that of as many of the job's own settings: "
        "another number than 1 where rows have settings of their own",
    )


class Estimate(Frozen):
    """What a job would cost. Null means unknown: no finished job has measured this recipe yet."""

    where: str = Field(
        description="Where it would run", examples=["2 renderers hold this engine (cpu)"]
    )
    renderers: int = Field(description="Renderers that `seconds` counts on; at least one")
    device: str | None = Field(description="The kind of device that was measured")
    measured_images: int = Field(description="Images that the figures rest on, older ones by half")
    device_seconds: float | None = Field(description="Time of devices: text, denoising, decoding")
    seconds: float | None = Field(description="From the first shard to the last, if nobody waits")
    price: float | None = Field(
        description="`device_seconds` at the operator's price of a device-hour; null without one"
    )


class DryRun(Submission):
    """What would be accepted, and what it would cost; `created` is always false."""

    estimate: Estimate
    #: Some of its rows: the first ones, or from `preview_first` on.
    preview: tuple[Row, ...] = Field(default=(), strict=False)


class JobView(Frozen):
    """What the API shows of a job."""

    id: str
    tenant: str
    name: str
    state: str
    reason: str = ""
    images: int
    done: int
    failed: int
    shards: int
    shards_running: int
    priority: int
    #: Images that may fail before it is stopped; None: any number.
    max_failed_rows: int | None = None
    submitted_ms: int
    started_ms: int | None = None
    finished_ms: int | None = None
    #: The id of its latest retry or extension (`ID-r1`), while the queue remembers it; empty: none.
    retry: str = ""
    images_per_second: float | None = None
    eta_s: float | None = None
    prefix: str
    budget: Budget = Field(default=Budget(), description="Its limits as they are now")
    device_seconds: float | None = Field(
        default=None,
        description="Seconds of devices that it spent, also on shards that were given back, or "
        "whose renderer died; null where that is not known any more",
    )
    warnings: tuple[str, ...] = Field(default=(), strict=False)
    recipe: dict[str, Any] = Field(default_factory=dict)


__all__ = [
    "MAX_SHARDS",
    "MAX_SHARD_IMAGES",
    "PAGE_ROWS",
    "DryRun",
    "Estimate",
    "ExtensionRequest",
    "Image",
    "Job",
    "JobRequest",
    "JobView",
    "Name",
    "Rows",
    "Submission",
    "choose_shard_images",
    "image_of",
    "job_id",
    "with_try",
]
