"""All pictures of a job page by page, one with everything known of it, and those that failed."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from jobs.again import command_of
from jobs.api import routes_jobs
from jobs.api.routes_items import ImageIndex, items_page
from jobs.api.routes_jobs import FailedCursor, JobId
from jobs.items import image_row, items_of
from jobs.page.figures import figures_of
from jobs.page.rendering import page
from jobs.page.route import PageRoute
from jobs.page.visitor import Looks
from jobs.rounds import read_accepted
from jobs.row_recipe import own_recipe

router = APIRouter(route_class=PageRoute, prefix="/jobs/{job_id}", tags=["page"])

#: Pictures on one page of the grid, whatever the job's size.
PICTURES = 60
#: Rows on one page of those that failed.
FAILED = 50


@router.get("/pictures")
def grid(
    request: Request,
    job_id: JobId,
    services: Looks,
    first: Annotated[int, Query(ge=0, le=10**13)] = 0,
    prompt: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Pictures from `first` on, or those whose prompt holds a text."""
    view, job = services.views.view(job_id), services.views.whole(job_id)
    accepted = read_accepted(services.store, services.settings.s3_prefix, job.tenant, job_id)
    images = accepted.again.images if accepted.again else job.images
    first = min(first, images - 1)
    text = prompt.strip()
    found = items_page(services, job_id, first=first, limit=PICTURES, prompt=text)
    return page(
        request,
        "grid.html",
        services,
        view=view,
        tab="pictures",
        job=job,
        items=found.items,
        images=images,
        first=first,
        next=found.next,
        before=max(0, first - PICTURES),
        prompt=text,
    )


@router.get("/pictures/{image}")
def picture(request: Request, job_id: JobId, image: ImageIndex, services: Looks) -> Response:
    """One picture, large, with its row."""
    view, job = services.views.view(job_id), services.views.accepted(job_id)
    layout = services.views.layout(job_id)
    (item,) = items_of(services.store, layout, job, [image])
    row = image_row(services.store, layout, job, image)
    negative = row["negative_prompt"] if row else ""
    own = own_recipe(job.recipe, row) if row else None
    command = command_of(services.catalog, job, item.prompt, negative, item.seed, own)
    return page(
        request,
        "picture.html",
        services,
        view=view,
        job=services.views.whole(job_id),
        item=item,
        row=row,
        own={name: row[name] for name in job.columns} if row else {},
        command=command,
    )


@router.get("/failed")
def failed(
    request: Request, job_id: JobId, services: Looks, cursor: FailedCursor = None
) -> Response:
    """Images without a picture, and why."""
    found = routes_jobs.failed_images(job_id, services, FAILED, cursor)
    view = services.views.view(job_id)
    return page(
        request,
        "failed.html",
        services,
        view=view,
        tab="failed",
        images=found.failed,
        ended=found.ended,
        next=found.cursor,
        first=cursor is None,
    )


@router.get("/timing")
def timing(request: Request, job_id: JobId, services: Looks) -> Response:
    """Where the time went, what held the job up, and its rate over time; also while it runs."""
    view, job = services.views.view(job_id), services.views.accepted(job_id)
    accepted = read_accepted(services.store, services.settings.s3_prefix, job.tenant, job_id)
    figures = figures_of(services, accepted, view)
    return page(request, "timing.html", services, view=view, tab="timing", job=job, figures=figures)
