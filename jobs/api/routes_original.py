"""The route that tells all of one picture: its row and its job, as it takes to make it again."""

from typing import Annotated

from fastapi import APIRouter, Path

from jobs.api.problems import responses
from jobs.api.routes_jobs import JobId
from jobs.api.services import UsesServices
from jobs.original import Original
from jobs.original_rows import KEY, read_original

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get(
    "/jobs/{job_id}/rows/{key}",
    summary="All that is known of a picture",
    responses=responses(404, 422, 503),
)
def job_row(
    job_id: JobId,
    key: Annotated[
        str,
        Path(pattern=KEY, description="Its name inside its shard", examples=["000170012"]),
    ],
    services: UsesServices,
) -> Original:
    """The whole row of an image in a committed shard, and the job with its recipe and weights.

    With them `fewstep repro` makes the picture again on another machine, and compares.
    """
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    return read_original(services.store, layout, job, key)
