"""The route that retries: the images of an ended job that have no picture, once more."""

import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from jobs.api.problems import responses
from jobs.api.routes_jobs import JobId
from jobs.api.services import UsesServices
from jobs.job import Submission
from jobs.retry import retry_failed

router = APIRouter(prefix="/v1", tags=["jobs"])


class Retry(Submission):
    """A retry, and where to follow it."""

    links: dict[str, str] = Field(description="Paths of its status, events and cancel")


@router.post(
    "/jobs/{job_id}/retry-failed",
    status_code=202,
    summary="Retry what failed",
    responses=responses(404, 409, 422, 503),
)
def retry(
    job_id: JobId,
    services: UsesServices,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(description="1 to 128 of A-Z a-z 0-9 . _ -; the same key is the same retry"),
    ] = None,
    unfinished: Annotated[
        bool, Query(description="Also what a cancelled or stopped job never rendered")
    ] = False,
) -> Retry:
    """Render exactly the images without a picture again, with their seeds, as new shards.

    The shards that are there stay as they are; index, timing, card and quarantine are written anew
    when the retry has ended. It has an id of its own, which all routes of a job take. While one
    runs, asking again names the same one.
    """
    services.views.accepted(job_id)
    done = retry_failed(
        services.store,
        services.queue,
        prefix=services.settings.s3_prefix,
        tenant=services.tenant,
        job_id=job_id,
        idempotency_key=idempotency_key if idempotency_key is not None else uuid.uuid4().hex,
        unfinished=unfinished,
        now_ms=time.time_ns() // 1_000_000,
        quota=services.visitor.quota,
    )
    path = f"/v1/jobs/{done.id}"
    response.headers["Location"] = path
    links = {"status": path, "events": f"{path}/events", "cancel": f"{path}/cancel"}
    return Retry(**done.model_dump(), links=links)
