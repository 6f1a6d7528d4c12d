"""Routes that look into a dataset while it is made: coverage by value, shards and their sheets."""

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from jobs.api.problems import responses
from jobs.api.routes_jobs import JobId
from jobs.api.services import Services, UsesServices
from jobs.covered import Coverage
from jobs.job import JobView
from jobs.pictures import PictureFile
from jobs.shard_list import MOST, ShardPage, shard_page
from jobs.states import TERMINAL

router = APIRouter(prefix="/v1", tags=["jobs"])

ShardNumber = Annotated[int, Path(ge=0, lt=10**8, description="As the dataset numbers its shards")]


@router.get(
    "/jobs/{job_id}/coverage", summary="Pictures by value", responses=responses(404, 422, 503)
)
def job_coverage(job_id: JobId, services: UsesServices) -> Coverage:
    """How many pictures there are of each value of the prompt source's own columns, beside what is
    expected at the end; also of pairs of columns with few values; and what was not taken, by
    reason. From committed shards, also while the job runs; with all retries of the job.

    A look reads up to 400 new manifests: of a large job the first ones may be behind (`counted`).
    """
    return coverage_now(services, job_id)


@router.get("/jobs/{job_id}/shards", summary="Committed shards", responses=responses(404, 422, 503))
def job_shards(
    job_id: JobId,
    services: UsesServices,
    first: Annotated[int, Query(ge=0, lt=10**8, description="`next` of the last page")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Shards at most")] = 100,
) -> ShardPage:
    """What is committed of each shard, in the order of their numbers; also while the job runs."""
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    return shard_page(services.store, layout, job, first=first, limit=limit)


@router.get(
    "/jobs/{job_id}/contact-sheet",
    summary="A shard's contact sheet",
    response_class=Response,
    responses=responses(404, 422, 503)
    | {
        200: {
            "description": "Up to 64 pictures from all over the shard, small, on one",
            "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def job_contact_sheet(
    job_id: JobId,
    services: UsesServices,
    shard: Annotated[int, Query(ge=0, lt=10**8, description="As the dataset numbers its shards")],
) -> Response:
    """As soon as the shard, or a part of it, is committed."""

    def make() -> PictureFile:
        job, layout = services.views.accepted(job_id), services.views.layout(job_id)
        return services.house.sheets.read(layout, job, shard)

    found = await run_sync(make, limiter=services.house.makers)
    headers = {
        "Cache-Control": "private, no-cache",
        "ETag": f'"{found.sha256}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(found.data, media_type=found.media_type, headers=headers)


def coverage_now(services: Services, job_id: str) -> Coverage:
    """The coverage of a job, or of the job that a retry is of."""
    views = services.views
    job, layout = views.accepted(job_id), views.layout(job_id)
    seen = [views.view(job.id)]
    if seen[0].retry:
        seen.append(views.view(seen[0].retry))
    elif job_id != job.id:
        seen.append(views.view(job_id))
    ended = all(view.state in TERMINAL for view in seen)
    return services.house.counting.look(layout, job, _news(seen), ended=ended)


def _news(seen: list[JobView]) -> object:
    """What changes whenever a shard is committed."""
    return tuple((view.id, view.state, view.done, view.failed) for view in seen)
