"""What may be done about a job and its dataset: limits, the rest, more of it, less of it."""

import uuid
from collections.abc import Callable
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from jobs.api import routes_drop, routes_jobs, routes_retry
from jobs.api.routes_jobs import Change, JobId
from jobs.api.services import Services
from jobs.budget import OPTIONS
from jobs.errors import FewstepError, InvalidInput, NotFound
from jobs.page.deeds import Standing, reasons, standing_of, title_of
from jobs.page.rendering import HEADERS, fragment, page
from jobs.page.route import PageRoute
from jobs.page.visitor import Changes, Looks
from jobs.page.wishes import budget_from, budget_values, whole
from jobs.specs import dataset_id
from jobs.states import JobState
from jobs.where import MAX_TEXT

router = APIRouter(route_class=PageRoute, prefix="/jobs/{job_id}", tags=["page"])

Text = Annotated[str, Form(max_length=40)]
Where = Annotated[str, Form(max_length=MAX_TEXT)]
Key = Annotated[str, Form(pattern=r"^[0-9a-f]{32}$|^$")]


@router.get("/change")
def change(
    request: Request,
    job_id: JobId,
    services: Looks,
    where: Annotated[str, Query(max_length=MAX_TEXT)] = "",
) -> Response:
    """All that may be done, and why the rest may not; `where`: stands in the field of drops."""
    return _page(request, services, job_id, 200, values={"where": where} if where else None)


@router.post("/course/limits")
def limits(
    request: Request,
    job_id: JobId,
    services: Changes,
    max_images: Text = "",
    max_device_seconds: Text = "",
    deadline: Text = "",
) -> Response:
    """Give the job other limits; one that stopped goes on."""
    fields = {
        "max_images": max_images,
        "max_device_seconds": max_device_seconds,
        "deadline": deadline,
    }

    def act() -> str:
        asked = routes_jobs.checked_change(budget_from(fields))
        # As the form showed them: in whole seconds.
        known = budget_values(services.views.view(dataset_id(job_id)).budget)
        before = routes_jobs.checked_change(budget_from(known))
        news = [name for name in OPTIONS if getattr(asked, name) != getattr(before, name)]
        if not news:
            raise InvalidInput("these are its limits already", where="limits")
        changed = Change(**{name: getattr(asked, name) for name in news})
        return routes_jobs.changed(services, dataset_id(job_id), changed).id

    return _done(request, services, job_id, act, "limits", fields)


@router.post("/course/rest")
def rest(request: Request, job_id: JobId, services: Changes) -> Response:
    """Render what a job never came to: without limits, or as a retry where it does not go on."""

    def act() -> str:
        now = standing_of(services, job_id)
        if now.view.state == JobState.STOPPED and not now.rounds:
            none = Change(**dict.fromkeys(OPTIONS))
            return routes_jobs.changed(services, now.view.id, none).id
        key = uuid.uuid4().hex
        return routes_retry.retry(job_id, services, Response(), key, unfinished=True).id

    return _done(request, services, job_id, act, "rest")


@router.post("/course/retry")
def retry(request: Request, job_id: JobId, services: Changes) -> Response:
    """Render what has no picture once more, and show that retry."""

    def act() -> str:
        return routes_retry.retry(job_id, services, Response(), uuid.uuid4().hex).id

    return _done(request, services, job_id, act, "retry")


@router.post("/course/extend")
def extend(
    request: Request, job_id: JobId, services: Changes, repeats: Text = "", key: Key = ""
) -> Response:
    """Add so many images of every prompt, and show that extension."""

    def act() -> str:
        more = whole({"repeats": repeats}, "repeats")
        if more is None or more < 1:
            raise InvalidInput("how many more of each prompt?", where="repeats", remedy="1 or more")
        wanted = routes_retry.extension_request({"repeats": more})
        own = dataset_id(job_id)
        return routes_retry.extended(services, own, wanted, None, key or uuid.uuid4().hex).id

    return _done(request, services, job_id, act, "extend", {"repeats": repeats})


@router.post("/course/look")
async def look(job_id: JobId, services: Changes, where: Where = "") -> Response:
    """Count what a drop would take out, and show some of it; writes nothing."""
    return await _in_turn(services, lambda: _look(services, job_id, where))


def _look(services: Services, job_id: str, where: str) -> Response:
    services.views.accepted(job_id)
    found = error = None
    try:
        found = routes_drop.dropped(services, dataset_id(job_id), where, "look", True)
    except NotFound:
        raise
    except FewstepError as wrong:
        error = wrong
    own, key = dataset_id(job_id), uuid.uuid4().hex
    # 200, because htmx leaves the page as it is for anything else.
    text = fragment("look.html", job_id=own, where=where, found=found, error=error, key=key)
    return HTMLResponse(text, headers=HEADERS)


@router.post("/course/drop")
async def drop(
    request: Request, job_id: JobId, services: Changes, where: Where = "", key: Key = ""
) -> Response:
    """Take rows out."""

    def act() -> str:
        own = dataset_id(job_id)
        routes_drop.dropped(services, own, where, key or uuid.uuid4().hex, False)
        return f"{own}/change#done"

    fields = {"where": where}
    return await _in_turn(services, lambda: _done(request, services, job_id, act, "drop", fields))


@router.post("/course/undo")
async def undo(request: Request, job_id: JobId, services: Changes) -> Response:
    """Put back what the last drop took out."""

    def act() -> str:
        own = dataset_id(job_id)
        routes_drop.undone(services, own)
        return f"{own}/change#done"

    return await _in_turn(services, lambda: _done(request, services, job_id, act, "undo"))


@router.post("/course/delete")
def delete(request: Request, job_id: JobId, services: Changes) -> Response:
    """Cancel the job, and delete what is there of it."""
    return _done(
        request,
        services,
        job_id,
        lambda: routes_jobs.cancel_job(job_id, services, "delete").id,
        "delete",
    )


async def _in_turn(services: Services, act: Callable[[], Response]) -> Response:
    """In one of the threads for what reads a whole dataset: those of all others stay free."""
    return await run_sync(act, limiter=services.house.changers)


def _done(
    request: Request,
    services: Services,
    job_id: str,
    act: Callable[[], str],
    deed: str,
    values: dict[str, str] | None = None,
) -> Response:
    """Do it, and lead to where that is seen; what is wrong is shown where it was asked for."""
    services.views.accepted(job_id)
    try:
        place = act()
    except NotFound:
        raise
    except FewstepError as error:
        return _page(request, services, job_id, error.http_status, deed, error, values)
    return RedirectResponse(f"/jobs/{place}", 303, headers=HEADERS)


def _page(
    request: Request,
    services: Services,
    job_id: str,
    status: int,
    deed: str = "",
    error: FewstepError | None = None,
    values: dict[str, str] | None = None,
) -> Response:
    now = standing_of(services, job_id)
    return page(
        request,
        "change.html",
        services,
        status,
        view=now.view,
        tab="change",
        now=now,
        why=reasons(now),
        wrong=deed,
        error=error,
        values=_values(now) | (values or {}),
        key=uuid.uuid4().hex,
        history=[(title_of(one), one) for one in reversed(now.rounds)],
    )


def _values(now: Standing) -> dict[str, str]:
    """What stands in the fields: the limits as they are, and a drop that was cut short."""
    cut = now.running.where if now.running else ""
    return {"repeats": "", "where": cut, **budget_values(now.view.budget)}
