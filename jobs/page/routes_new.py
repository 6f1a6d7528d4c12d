"""Submitting from the page: the form, its preview (a dry run), and the job that comes of it."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, get_args

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from jobs.api.body import read_fields
from jobs.api.routes_submit import in_a_thread, submit_rows
from jobs.api.services import Services
from jobs.errors import FewstepError
from jobs.filters import Policy
from jobs.items import image_row, items_of
from jobs.job import Output, Submission
from jobs.offers import model_offers
from jobs.page.form import EMPTY, request_from, rows_from, values_again, values_of, wrong_field
from jobs.page.rendering import HEADERS, fragment, page
from jobs.page.route import PageRoute
from jobs.page.visitor import Changes, Looks
from jobs.page.wishes import LEAST, MOST, POLICY
from jobs.recipe import Dtype, Sampler
from jobs.row_recipe import own_recipe

#: Rows of which a preview shows the prompts.
SHOWN = 12
#: Fields of the group of filters begin with one of these.
FILTER_FIELDS = (POLICY, LEAST, MOST, "filters", "accept", "max_tries")
router = APIRouter(route_class=PageRoute, prefix="/new", tags=["page"])


@router.get("")
def form(
    request: Request,
    services: Looks,
    job: Annotated[str, Query(pattern=r"^([a-z2-7]{26})?$")] = "",
    image: Annotated[int, Query(ge=0, le=10**13)] = 0,
) -> Response:
    """An empty form, or one that makes a picture of a job again."""
    values = _again(services, job, image) if job else dict(EMPTY)
    return _form(request, services, values)


@router.post("/preview")
async def preview(request: Request, services: Changes) -> Response:
    """What would be submitted, and what it would cost; writes nothing."""
    async with _filled_in(request) as (fields, values):
        try:
            glimpse = range(SHOWN)
            found = await in_a_thread(services, glimpse, _submit, fields, values)
        except FewstepError as error:
            shown = fragment("preview.html", error=error, found=None)
            # 200, because htmx leaves the page as it is for anything else.
            return HTMLResponse(shown, headers=HEADERS)
    shown = fragment("preview.html", error=None, found=found)
    return HTMLResponse(shown, headers=HEADERS)


@router.post("")
async def submit(request: Request, services: Changes) -> Response:
    """Submit, and show the job; what is wrong is shown beside what was filled in."""
    async with _filled_in(request) as (fields, values):
        try:
            done = await run_in_threadpool(_submit, services, fields, values, None)
        except FewstepError as error:
            return _form(request, services, values, error)
    return RedirectResponse(f"/jobs/{done.id}", 303, headers=HEADERS)


@asynccontextmanager
async def _filled_in(request: Request) -> AsyncIterator[tuple[FormData, dict[str, str]]]:
    async with read_fields(request) as fields:
        yield fields, values_of(fields)


def _submit(
    services: Services, fields: FormData, values: dict[str, str], glimpse: range | None
) -> Submission:
    rows = rows_from(fields, values)
    key = values.get("key") or uuid.uuid4().hex
    return submit_rows(services, request_from(values), rows, key, glimpse)


def _form(
    request: Request,
    services: Services,
    values: dict[str, str],
    error: FewstepError | None = None,
) -> Response:
    status = 200 if error is None else error.http_status
    # A key of its own, so that a form that is sent twice is one job; the same one again where the
    # job may be there already, and only the answer was lost.
    known = values.get("key") if status in (429, 503) else None
    wrong = wrong_field(error, values)
    touched = {wrong} | {one for one in values if values[one] != EMPTY.get(one, "")}
    return page(
        request,
        "new.html",
        services,
        status,
        values=values,
        error=error,
        wrong=wrong,
        # Groups of fields are open where one of them is filled in, or wrong.
        touched=touched,
        filtered=any(one.startswith(FILTER_FIELDS) for one in touched),
        key=known or uuid.uuid4().hex,
        models=model_offers(services.catalog),
        accelerators=list(services.catalog.accelerators),
        styles=services.catalog.styles,
        samplers=get_args(Sampler),
        dtypes=get_args(Dtype),
        vaes=["own", *services.catalog.vaes],
        filters=services.catalog.filters,
        policies=get_args(Policy),
        outputs=get_args(Output),
    )


def _again(services: Services, job_id: str, image: int) -> dict[str, str]:
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    (item,) = items_of(services.store, layout, job, [min(image, job.images - 1)])
    row = image_row(services.store, layout, job, item.image)
    negative = row["negative_prompt"] if row else ""
    own = own_recipe(job.recipe, row) if row else None
    return values_again(services.catalog, job, item, negative, own, time.time_ns() // 1_000_000)
