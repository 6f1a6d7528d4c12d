"""A job's own page: progress, the live contact sheet, and what may be done about the job."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from sse_starlette import EventSourceResponse

from jobs.api import routes_jobs
from jobs.api.routes_jobs import JobId
from jobs.api.sse import EventFan
from jobs.api.visitor import check_lives
from jobs.events import checked_cursor
from jobs.job import JobView
from jobs.page.live import pieces
from jobs.page.rendering import HEADERS, page
from jobs.page.route import PageRoute
from jobs.page.sheet import cells_now, sheet_of
from jobs.page.visitor import Changes, Looks, LooksAtPictures
from jobs.states import TERMINAL

router = APIRouter(route_class=PageRoute, prefix="/jobs/{job_id}", tags=["page"])


@router.get("")
def job(request: Request, job_id: JobId, services: Looks) -> Response:
    """Where the job stands, and its sheet."""
    # Before the view: events behind it are told again, those before it are in the view.
    cursor = services.house.feed.newest()
    view = services.views.view(job_id)
    sheet = sheet_of(services, job_id)
    return page(
        request,
        "job.html",
        services,
        view=view,
        tab="sheet",
        sheet=sheet,
        cells=cells_now(services, sheet, view),
        cursor=cursor,
        ended=view.state in TERMINAL,
    )


@router.get("/live")
async def live(
    request: Request,
    job_id: JobId,
    services: LooksAtPictures,
    after: Annotated[str | None, Query(max_length=50)] = None,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> EventSourceResponse:
    """The job's events as pieces of its page, until it has ended."""
    fan: EventFan = request.app.state.fan

    def look() -> JobView:
        check_lives(services.house, services.visitor)
        return services.views.view(job_id)

    known = last_event_id or after
    cursor = await fan.cursor(None if known is None else checked_cursor(known))
    view = await run_in_threadpool(look)
    sheet = await run_in_threadpool(sheet_of, services, job_id)
    submit = not {"submit", "admin"}.isdisjoint(services.visitor.scopes)
    stream = pieces(fan, sheet, cursor, view, look, submit)
    return fan.streams.response(services.visitor, stream)


@router.post("/course/priority")
def priority(
    job_id: JobId, services: Changes, number: Annotated[int, Form(ge=0, le=9)]
) -> Response:
    """Serve the job earlier or later."""
    routes_jobs.set_priority(services, job_id, number)
    return _to_job(job_id)


@router.post("/course/{what}")
def steer(job_id: JobId, what: Literal["cancel", "pause", "resume"], services: Changes) -> Response:
    """Change the job's course, and show it."""
    deeds = {
        "cancel": routes_jobs.cancel_job,
        "pause": routes_jobs.pause_job,
        "resume": routes_jobs.resume_job,
    }
    deeds[what](job_id, services)
    return _to_job(job_id)


def _to_job(job_id: str) -> Response:
    return RedirectResponse(f"/jobs/{job_id}", 303, headers=HEADERS)
