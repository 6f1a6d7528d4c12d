"""Routes of jobs that exist: list, show, follow, fetch, and change their course."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, ValidationError
from sse_starlette import EventSourceResponse

from jobs.api.body import read_object
from jobs.api.problems import raise_invalid, responses
from jobs.api.services import Services, UsesServices
from jobs.api.sse import EventFan
from jobs.api.visitor import check_lives
from jobs.budget import OPTIONS, Budget
from jobs.control import rank, steer
from jobs.errors import Conflict, InvalidInput
from jobs.events import checked_cursor
from jobs.failed import FailedPage, failed_page
from jobs.job import JobView
from jobs.queue_values import WantedState
from jobs.raising import change_budget
from jobs.results import Results, read_timing, results_of
from jobs.states import TERMINAL, JobState
from jobs.timing import Timing

router = APIRouter(prefix="/v1", tags=["jobs"])

JobId = Annotated[
    str,
    Path(
        pattern=r"^[a-z2-7]{26}(-r[1-9]\d{0,3})?$",
        description="The job's id, or that of a retry of it (`ID-r1`)",
        examples=["mfzwiztbonsgmylkmjvgqzdtmi"],
    ),
]
Cursor = Annotated[str | None, Query(pattern=r"^\d{1,16}$", description="From the last page")]
FailedCursor = Annotated[
    str | None,
    Query(pattern=r"^(\d{1,13}|[\d-]{1,30}\.\d{1,5})$", description="From the last page"),
]
Limit = Annotated[int, Query(ge=1, le=500, description="Jobs at most")]


class JobList(BaseModel):
    """Jobs, newest first; `cursor` asks for the next page, null: this was the last."""

    jobs: list[JobView]
    cursor: str | None


class Change(Budget):
    """What of an accepted job may change; a limit that is null ends the job no more."""

    priority: int | None = Field(default=None, ge=0, le=9, description="0 to 9; 9 is served first")


@router.get("/jobs", summary="List jobs", responses=responses(422, 503))
def list_jobs(
    services: UsesServices,
    state: JobState | None = None,
    model: Annotated[str | None, Query(max_length=200, description="The recipe's model")] = None,
    name: Annotated[str | None, Query(max_length=200, description="In the job's name")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> JobList:
    """Jobs of the last days, newest first. With a filter, a page may be short of `limit`."""

    def wanted(view: JobView) -> bool:
        return (
            state in (None, view.state)
            and model in (None, view.recipe.get("model"))
            and (name or "").casefold() in view.name.casefold()
        )

    found, more = services.views.page(limit=limit, cursor=cursor, wanted=wanted)
    return JobList(jobs=found, cursor=more)


@router.get("/jobs/{job_id}", summary="Show a job", responses=responses(404, 422, 503))
def show_job(job_id: JobId, services: UsesServices) -> JobView:
    """Its state, why it waits, its progress, rate and time left."""
    return services.views.view(job_id)


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=responses(404, 422, 429, 503),
)
async def follow_job(
    job_id: JobId,
    request: Request,
    services: UsesServices,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Go on behind this event")
    ] = None,
) -> EventSourceResponse:
    """Server-sent events until the job has ended.

    The first is `progress` with the whole job, and so is every change of it; between them come
    the queue's own events (`claimed`, `done`, `fail`, `state`, ...), and `end` at last. Who comes
    back with `Last-Event-ID` gets what came since, from the next 10,000 events of all jobs. A key
    has up to 256 streams open (429).
    """
    fan: EventFan = request.app.state.fan

    def look() -> JobView:
        check_lives(services.house, services.visitor)
        return services.views.view(job_id)

    after = None if last_event_id is None else checked_cursor(last_event_id)
    cursor = await fan.cursor(after)
    view = await run_in_threadpool(look)
    return fan.streams.response(services.visitor, fan.stream(job_id, cursor, view, look))


@router.get(
    "/jobs/{job_id}/results",
    summary="Where the dataset lies",
    responses=responses(404, 409, 422, 503),
)
def job_results(
    job_id: JobId,
    services: UsesServices,
    first: Annotated[int, Query(ge=0, le=10**9, description="Files to pass over")] = 0,
    limit: Annotated[int, Query(ge=1, le=5_000, description="Files at most")] = 1_000,
    after: Annotated[
        str, Query(pattern=r"^[A-Za-z0-9._/-]{0,300}$", description="From the last page")
    ] = "",
) -> Results:
    """Files with size, digest and a link that works for a while; 409 until the job has ended."""
    _ended(services, job_id)
    layout = services.views.layout(job_id)
    return results_of(services.store, layout, first=first, limit=limit, after=after)


@router.get(
    "/jobs/{job_id}/failed",
    summary="Images without a picture",
    responses=responses(404, 422, 503),
)
def failed_images(
    job_id: JobId,
    services: UsesServices,
    limit: Annotated[int, Query(ge=1, le=500, description="Images at most")] = 100,
    cursor: FailedCursor = None,
) -> FailedPage:
    """Each with its prompt, seed, error and traceback: all once the job has ended, those in
    committed shards before. A page may be short of `limit` although more follow."""
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    return failed_page(services.store, layout, job, limit=limit, cursor=cursor)


@router.get(
    "/jobs/{job_id}/timing",
    summary="What took how long",
    responses=responses(404, 409, 422, 503),
)
def job_timing(job_id: JobId, services: UsesServices) -> Timing:
    """`timing.json` of the dataset: queue wait, load, text, denoising, decode, encode, upload."""
    _ended(services, job_id)
    return read_timing(services.store, services.views.layout(job_id))


@router.post("/jobs/{job_id}/cancel", summary="Cancel", responses=responses(404, 409, 422, 503))
def cancel_job(
    job_id: JobId,
    services: UsesServices,
    shards: Annotated[
        Literal["keep", "delete"], Query(description="What becomes of those that are committed")
    ] = "keep",
) -> JobView:
    """End the job for good. Running shards stop at their next batch.

    Committed ones stay, with an index that says that they are not all; or they are deleted, with
    everything of the job but its settings.
    """
    return _steered(services, job_id, "cancel", discard=shards == "delete")


@router.post("/jobs/{job_id}/pause", summary="Pause", responses=responses(404, 409, 422, 503))
def pause_job(job_id: JobId, services: UsesServices) -> JobView:
    """Start no new shard until `resume`; running ones are given back at their next batch."""
    return _steered(services, job_id, "pause")


@router.post("/jobs/{job_id}/resume", summary="Resume", responses=responses(404, 409, 422, 503))
def resume_job(job_id: JobId, services: UsesServices) -> JobView:
    """Let a paused job go on."""
    return _steered(services, job_id, "run")


@router.patch(
    "/jobs/{job_id}",
    summary="Change priority or budget",
    responses=responses(400, 404, 409, 413, 415, 422, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": Change.model_json_schema(),
                    "example": {"priority": 9, "max_images": 20_000},
                }
            },
        }
    },
)
async def change_job(job_id: JobId, request: Request, services: UsesServices) -> JobView:
    """Serve the job earlier or later, from the next shard on; give it other limits.

    A job that stopped at a limit goes on where that is raised.
    """
    change = checked_change(await read_object(request, limit=10_000))
    return await run_in_threadpool(changed, services, job_id, change)


def checked_change(fields: dict[str, Any]) -> Change:
    """What of a job is to change; raises Refused naming the field that is wrong."""
    try:
        return Change.model_validate(fields)
    except ValidationError as error:
        raise_invalid(error, "")


def changed(services: Services, job_id: str, change: Change) -> JobView:
    """Change limits and priority; raises InvalidInput, and Conflict where the job is over."""
    limits = {name: getattr(change, name) for name in OPTIONS if name in change.model_fields_set}
    if change.priority is None and not limits:
        raise InvalidInput("nothing is to be changed", where="body", remedy='{"max_images": 20000}')
    if limits:
        views = services.views
        job, layout = views.accepted(job_id), views.layout(job_id)
        change_budget(
            services.store,
            services.queue,
            layout,
            job,
            job_id,
            limits,
            quota=services.visitor.quota,
            allowance=services.house.allowance,
        )
    if change.priority is not None:
        set_priority(services, job_id, change.priority)
    return services.views.view(job_id)


def set_priority(services: Services, job_id: str, priority: int) -> JobView:
    """Serve an open job earlier or later; raises Conflict for one that has ended."""
    _still_open(services, job_id)
    layout = services.views.layout(job_id)
    rank(services.queue, services.store, layout, job_id, priority)
    return services.views.view(job_id)


def _steered(
    services: Services, job_id: str, wanted: WantedState, *, discard: bool = False
) -> JobView:
    before = services.views.view(job_id)
    if wanted == "cancel" and before.state == JobState.CANCELLED and not discard:
        return before
    _still_open(services, job_id)
    layout = services.views.layout(job_id)
    reached = steer(services.queue, services.store, layout, job_id, wanted, discard=discard)
    after = services.views.view(job_id)
    if reached != wanted:
        reason = f": {after.reason}" if after.reason else ""
        raise Conflict(
            f"the job is {after.state}{reason}",
            where=job_id,
            remedy="nothing is left to be changed, or try again in a moment",
        )
    return after


def _still_open(services: Services, job_id: str) -> None:
    state = services.views.view(job_id).state
    if state in TERMINAL:
        stopped = state == JobState.STOPPED
        raise Conflict(
            f"the job is {state}",
            where=job_id,
            remedy=f"raise its budget: fewstep budget {job_id}"
            if stopped
            else "submit the prompts again as a new job",
        )


def _ended(services: Services, job_id: str) -> None:
    view = services.views.view(job_id)
    if view.state not in TERMINAL:
        raise Conflict(
            f"the job is {view.state}: {view.done + view.failed} of {view.images} images so far",
            where=job_id,
            remedy=f"follow /v1/jobs/{job_id}/events until it has ended",
        )
