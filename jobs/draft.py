"""A job before it is accepted: its size, its seed, its warnings, and what the queue is told."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from jobs.budget import Budget
from jobs.errors import InvalidInput, TooLarge
from jobs.filter_columns import check_columns
from jobs.filters import JobFilter
from jobs.job import (
    MAX_OBJECTS,
    MAX_SHARDS,
    Job,
    JobRequest,
    Output,
    Rows,
    choose_shard_images,
)
from jobs.keys import Quota
from jobs.layout import JobLayout
from jobs.licences import licence_notes
from jobs.queue_values import SubmitRequest
from jobs.recipe import Recipe
from jobs.rows import Row
from jobs.seeds import MAX_SEED, repeat_seed
from jobs.sources.reading import Rejected, SourceRows
from jobs.templates.row_templates import MAX_EXPANDED as MAX_ROWS
from jobs.templates.row_templates import expanded
from jobs.templates.template import Template

#: Looks at a row and its place.
Note = Callable[[Row, str], None]
#: Rows of a template that are looked at for warnings.
LOOKED_AT = 1_000
#: Rows between two looks at the clock.
_LOOK = 100
#: A CLIP text encoder reads 77 tokens, two of them its own; a word is at least one.
CLIP_WORDS = 75


class RowTally:
    """Passes rows on, and notes what their submitter should be warned of or shown."""

    def __init__(
        self,
        rows: Iterable[Row],
        glimpse: range = range(0),
        template: Template | None = None,
        note: Note = lambda row, where: None,
    ) -> None:
        self._rows, self._glimpse, self._note = rows, glimpse, note
        #: What the source leaves out, once it was read.
        self.rejected = Rejected()
        #: What the rows are of, where they are too many to be passed on.
        self.template = template
        self.negative = 0
        self.long = 0
        self.shown: list[Row] = []
        #: Seconds that passing them on may take; None: any number.
        self.within_s: float | None = None

    def __iter__(self) -> Iterator[Row]:
        until = None if self.within_s is None else time.monotonic() + self.within_s
        for number, row in enumerate(self._rows):
            if until is not None and number % _LOOK == 0 and time.monotonic() > until:
                raise _too_long(number, self.within_s)
            if number >= MAX_ROWS:
                raise TooLarge(
                    f"more than {MAX_ROWS} rows",
                    where="prompts",
                    remedy="submit them in several jobs, or as a template, which writes no rows",
                )
            self._note(row, f"row {number + 1}")
            guided = row.recipe is not None and (row.recipe.guidance or 0) > 1
            self.negative += bool(row.negative_prompt) and not guided
            self.long += len(row.prompt.split()) > CLIP_WORDS
            if number in self._glimpse:
                self.shown.append(row)
            yield row


def _too_long(rows: int, within_s: float | None) -> TooLarge:
    return TooLarge(
        f"reading the prompts takes longer than {within_s:g} s: {rows} rows were read",
        where="prompts",
        remedy="submit them without a dry run: all of them are checked then too",
    )


def tally_of(
    request: JobRequest,
    rows: Iterable[Row] | Template,
    glimpse: range = range(0),
    note: Note = lambda row, where: None,
) -> RowTally:
    """The rows that a request makes of its source; those numbered in `glimpse` are kept to show.

    A template's rows stay where they are: the first ones stand for all. `note` is told each row of
    any other source with its number. Raises InvalidInput.
    """
    if not isinstance(rows, Template):
        source = repeated(rows)
        tally = RowTally(
            source if request.expand is None else expanded(source, request.expand),
            glimpse,
            note=note,
        )
        if isinstance(rows, SourceRows):
            tally.rejected = rows.rejected
        return tally
    if request.expand is not None:
        raise InvalidInput(
            "a template says itself how it becomes rows", where="expand", remedy="leave it out"
        )
    prompts = rows.prompts
    tally = RowTally(prompts.rows(0, min(prompts.count, LOOKED_AT)), template=rows)
    for _ in tally:
        """Counted on the way."""
    tally.shown = [prompts.row(number) for number in glimpse if number < prompts.count]
    return tally


def repeated(rows: Iterable[Row]) -> Iterator[Row]:
    """Each row as often as it says; the seeds of its repeats as those of a job's."""
    for row in rows:
        if row.repeats == 1:
            yield row
            continue
        for repeat in range(row.repeats):
            seed = None if row.seed is None else repeat_seed(row.seed, repeat)
            yield row.model_copy(update={"repeats": 1, "seed": seed})


def draft_job(
    layout: JobLayout,
    request: JobRequest,
    recipe: Recipe,
    rows: Rows,
    tally: RowTally,
    now_ms: int,
    filters: tuple[JobFilter, ...] = (),
) -> Job:
    """The job as it will be accepted; raises InvalidInput for too many shards or objects."""
    images = rows.count * request.per_row
    through = request.images_of(images)
    check_objects(request.output, through)
    _check_form(request)
    check_columns(filters, rows.columns)
    size = request.shard_images or _shard_images(images, through, recipe)
    if -(-images // size) > MAX_SHARDS:
        raise InvalidInput(
            f"{images} images in shards of {size} are more than {MAX_SHARDS} shards",
            where="shard_images",
            remedy=f"at least {-(-images // MAX_SHARDS)} images a shard, or several jobs",
        )
    return Job(
        id=layout.job_id,
        tenant=layout.tenant,
        name=request.name,
        recipe=recipe,
        rows=rows,
        seed=_drawn_seed(layout.job_id) if request.seed is None else request.seed,
        format=request.format,
        quality=request.quality,
        output=request.output,
        validation=request.validation,
        thumbnails=request.thumbnails,
        shard_images=size,
        priority=request.priority,
        **request.failures(through),
        **dict(request.only()),
        **request.settled(filters),
        submitted_ms=now_ms,
        request_sha256=_request_digest(request, rows),
        warnings=tuple(_warnings(request, recipe, tally, rows, through)),
        fewstep=release(),
    )


def _shard_images(images: int, through: int, recipe: Recipe) -> int:
    """About sixteen shards of what its budget lets through, as long as all of it has room."""
    size = choose_shard_images(through, recipe.batch_images)
    roomy = -(-images // size) <= MAX_SHARDS
    return size if roomy else choose_shard_images(images, recipe.batch_images)


def check_objects(output: Output, images: int) -> None:
    """Refuse more single objects than a store is to hold of one job."""
    if output in ("objects", "imagefolder") and images > MAX_OBJECTS:
        raise InvalidInput(
            f"{images} pictures as single objects: at most {MAX_OBJECTS} are",
            where="output",
            remedy="leave output out: the shards have every picture, links into them are to be had "
            "one by one (/items), and `fewstep export` makes folders of a fetched dataset",
        )


def _check_form(request: JobRequest) -> None:
    for name in ("validation", "thumbnails"):
        if getattr(request, name) and request.output not in ("imagefolder", "parquet"):
            raise InvalidInput(
                f"the output {request.output} has no {name}",
                where=name,
                remedy="choose the output imagefolder or parquet, or make another form of the "
                "fetched dataset: `fewstep export`",
            )


def _drawn_seed(job: str) -> int:
    """A seed for a job without one: from its id, so that every resend draws the same."""
    digest = hashlib.blake2b(f"fewstep-job-seed:{job}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & MAX_SEED


def _request_digest(request: JobRequest, rows: Rows) -> str:
    """Identity of what was asked for: the request as sent (no drawn seed) and the rows."""
    asked = {"request": request.model_dump(mode="json"), "rows": [rows.count, rows.sha256]}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _warnings(
    request: JobRequest, recipe: Recipe, tally: RowTally, rows: Rows, through: int
) -> Iterator[str]:
    if rows.recipes * recipe.batch_images > through and rows.recipes > 1:
        yield (
            f"rows have {rows.recipes} different settings: only images of the same one share a "
            f"batch of {recipe.batch_images}, and a batch that is not full takes as long; best are "
            "few settings, and rows sorted by them"
        )
    if tally.rejected.lines:
        first = json.loads(tally.rejected.lines[0])
        yield (
            f"{len(tally.rejected.lines)} rows cannot be rendered and are left out "
            f"(rejected_rows.jsonl); the first: {first['where']}: {first['error']}"
        )
    if tally.negative and not recipe.guided:
        yield (
            f"{tally.negative} rows have a negative prompt, which has no effect at guidance "
            f"{recipe.guidance:g}: it takes guidance above 1"
        )
    if tally.long:
        yield (
            f"{tally.long} prompts have more than {CLIP_WORDS} words: the text encoder reads 77 "
            "tokens; each image's tokens_lost says how many it could not"
        )
    if request.format == "png" and request.quality != JobRequest.model_fields["quality"].default:
        yield "quality has no effect on PNG, which is lossless"
    yield from licence_notes(recipe.licences)


def order_of(
    job: Job, quota: Quota | None = None, budget: Budget | None = None, before_ms: int = 0
) -> SubmitRequest:
    """What the queue is told of a job; raises InvalidInput for what it cannot hold.

    Without a quota, the tenant's share and limits are the queue's own; without a budget, the job's
    own holds, of which `before_ms` of devices are spent.
    """
    budget = budget or job.only()
    order = SubmitRequest(
        job_id=job.id,
        tenant=job.tenant,
        engine_key=job.recipe.engine_key,
        images=budget.images_of(job.images),
        shard_images=job.shard_images,
        spec_sha256=job.request_sha256,
        priority=job.priority,
        unit_cost=device_seconds(job.recipe) * job.rows.cost,
        batch_images=job.recipe.batch_images,
        max_failed=job.failed_limit(budget.images_of(job.images)),
        limits=budget.limits(job.images, job.shard_images, before_ms),
    )
    if quota is None:
        return order
    return replace(
        order,
        tenant_weight=quota.weight,
        tenant_cap=quota.shards_in_flight,
        tenant_jobs=quota.open_jobs,
    )


def device_seconds(recipe: Recipe) -> float:
    """A rough guess of an image's device time, for recipes of which nothing was measured."""
    megapixels = recipe.width * recipe.height / 1e6
    # Decoding costs about as much as two UNet calls of the same size.
    return 0.05 * megapixels * (recipe.unet_calls + 2)


def release() -> str:
    """The version of fewstep that runs."""
    try:
        return version("fewstep")
    except PackageNotFoundError:
        return "0"
