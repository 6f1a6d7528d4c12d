"""A job's coverage by value, and its shards with a contact sheet each; also while it runs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from jobs.api import routes_coverage
from jobs.api.routes_jobs import JobId
from jobs.page.coverage_charts import column_chart, pair_charts
from jobs.page.look_alikes import AtTheEnd, at_the_end
from jobs.page.rendering import page
from jobs.page.route import PageRoute
from jobs.page.visitor import Looks
from jobs.states import TERMINAL

router = APIRouter(route_class=PageRoute, prefix="/jobs/{job_id}", tags=["page"])

#: Shards on one page, each with its sheet.
SHARDS = 12


@router.get("/coverage")
def coverage(request: Request, job_id: JobId, services: Looks) -> Response:
    """Pictures by value beside what is expected, and why others are missing."""
    view = services.views.view(job_id)
    found = routes_coverage.coverage_now(services, job_id)
    ended = view.state in TERMINAL
    return page(
        request,
        "coverage.html",
        services,
        view=view,
        tab="coverage",
        found=found,
        columns=[column_chart(one) for one in found.columns],
        pairs=pair_charts(found),
        ended=ended,
        end=at_the_end(services, job_id) if ended else AtTheEnd(),
    )


@router.get("/shards")
def shards(
    request: Request,
    job_id: JobId,
    services: Looks,
    first: Annotated[int, Query(ge=0, lt=10**8)] = 0,
) -> Response:
    """Committed shards from a number on, each with its contact sheet."""
    view, job = services.views.view(job_id), services.views.accepted(job_id)
    found = routes_coverage.job_shards(job_id, services, first, SHARDS)
    return page(
        request,
        "shards.html",
        services,
        view=view,
        tab="shards",
        job=job,
        shards=found.shards,
        first=first,
        next=found.next,
        before=max(0, first - SHARDS),
        ended=view.state in TERMINAL,
    )
