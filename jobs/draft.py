"""A job before it is accepted: its size, its seed, its warnings, and what the queue is told."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from jobs.budget import Budget
from jobs.errors import InvalidInput
from jobs.filter_columns import check_columns
from jobs.filters import JobFilter
from jobs.intake import RowTally, row_warnings
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
from jobs.row_checks import device_seconds
from jobs.seeds import MAX_SEED


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
    yield from row_warnings(recipe, tally, rows, through)
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


def release() -> str:
    """The version of fewstep that runs."""
    try:
        return version("fewstep")
    except PackageNotFoundError:
        return "0"
