"""The routes of drops: rows taken out of a dataset, looked at before, and put back."""

import time
import uuid
from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from pydantic import Field

from jobs.api.openapi import body_of, read_body
from jobs.api.problems import responses
from jobs.api.routes_jobs import JobId
from jobs.api.routes_retry import Key
from jobs.api.services import Services, UsesServices
from jobs.drop import Dropped, drop_rows, look
from jobs.finish import facts_of
from jobs.recipe import Frozen
from jobs.undo_drop import undo_drop
from jobs.where import MAX_TEXT

router = APIRouter(prefix="/v1", tags=["jobs"])


class DropRequest(Frozen):
    """Which rows are to go."""

    where: str = Field(
        min_length=1,
        max_length=MAX_TEXT,
        description="A condition on columns: `shape = 'star' and not (seed < 100)`",
    )


@router.post(
    "/jobs/{job_id}/drop",
    summary="Take rows out",
    responses=responses(400, 404, 409, 413, 415, 422, 503),
    openapi_extra=body_of(DropRequest, {"where": "shape = 'star' and not (seed < 100)"}),
)
async def drop(
    job_id: JobId,
    request: Request,
    services: UsesServices,
    idempotency_key: Key = None,
    dry_run: Annotated[bool, Query(description="Count and show some, write nothing")] = False,
) -> Dropped:
    """Write the shards that hold matching rows anew without them, and the index with it.

    Of a dataset that is complete. It is done when this answers, which takes as long as reading the
    rows of all shards, and writing those shards once; where the answer is lost, send it again with
    its key.
    """
    asked = await read_body(request, DropRequest)
    key = idempotency_key if idempotency_key is not None else uuid.uuid4().hex
    change = partial(dropped, services, job_id, asked.where, key, dry_run)
    return await run_sync(change, limiter=services.house.changers)


@router.post(
    "/jobs/{job_id}/undo-drop",
    summary="Put dropped rows back",
    responses=responses(404, 409, 422, 503),
)
async def undo(job_id: JobId, services: UsesServices) -> Dropped:
    """Take back the last drop, within a day, where nothing else was done to the dataset since."""
    return await run_sync(partial(undone, services, job_id), limiter=services.house.changers)


def undone(services: Services, job_id: str) -> Dropped:
    """Put rows back; raises what `undo_drop` does."""
    job = services.views.accepted(job_id)
    return undo_drop(
        services.store,
        services.queue,
        facts_of(job, services.catalog),
        prefix=services.settings.s3_prefix,
        tenant=services.tenant,
        job_id=job_id,
        now_ms=time.time_ns() // 1_000_000,
    )


def dropped(services: Services, job_id: str, where: str, key: str, dry_run: bool) -> Dropped:
    """Take rows out, or only look which; raises what `drop_rows` does."""
    job, prefix = services.views.accepted(job_id), services.settings.s3_prefix
    if dry_run:
        return look(services.store, prefix, services.tenant, job_id, where)
    return drop_rows(
        services.store,
        services.queue,
        facts_of(job, services.catalog),
        prefix=prefix,
        tenant=services.tenant,
        job_id=job_id,
        where=where,
        idempotency_key=key,
        now_ms=time.time_ns() // 1_000_000,
    )
