"""The first page: the tenant's jobs, newest first."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from jobs.api.routes_jobs import Cursor, list_jobs
from jobs.page.rendering import page
from jobs.page.route import PageRoute
from jobs.page.visitor import Looks
from jobs.states import JobState

router = APIRouter(route_class=PageRoute, tags=["page"])

#: Jobs on one page.
ROWS = 30


@router.get("/")
def jobs(
    request: Request,
    services: Looks,
    state: Annotated[str, Query(pattern=f"^({'|'.join(JobState)})?$")] = "",
    name: Annotated[str, Query(max_length=200)] = "",
    cursor: Cursor = None,
) -> Response:
    """Jobs with their progress; a filtered page may be short although more follow."""
    wanted = JobState(state) if state else None
    found = list_jobs(services, state=wanted, name=name or None, limit=ROWS, cursor=cursor)
    return page(
        request,
        "jobs.html",
        services,
        jobs=found.jobs,
        next=found.cursor,
        state=state,
        name=name,
        states=list(JobState),
        first=cursor is None,
    )
