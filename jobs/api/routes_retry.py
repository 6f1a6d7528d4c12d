"""The routes of later rounds: what failed once more, and more repeats or rows of a dataset."""

import json
import time
import uuid
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, ValidationError

from jobs.api.body import is_form, parse_object, read_form, read_object
from jobs.api.problems import raise_invalid, responses
from jobs.api.prompt_sources import (
    FILE_SCHEMA,
    SOURCE_SCHEMAS,
    SOURCES,
    check_sources,
    opened,
)
from jobs.api.routes_jobs import JobId
from jobs.api.services import Services, UsesServices
from jobs.extend import extend_job
from jobs.job import ExtensionRequest, Submission
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.sources.reading import read_rows
from jobs.templates.template import Template

router = APIRouter(prefix="/v1", tags=["jobs"])

Key = Annotated[
    str | None,
    Header(description="1 to 128 of A-Z a-z 0-9 . _ -; the same key is the same wish"),
]
_EXTENSION_FIELDS = {
    "source": {"$ref": "#/components/schemas/Reading"},
    "expand": {"$ref": "#/components/schemas/Expansion"},
}
_EXTENSION = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "description": "One of `repeats`, `prompts`, `prompts_from` and `template`.",
                "properties": {
                    "repeats": {"type": "integer", "minimum": 1, "maximum": 100_000},
                    **_EXTENSION_FIELDS,
                    **SOURCE_SCHEMAS,
                },
            },
            "example": {"repeats": 4},
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["prompts"],
                "properties": {
                    "job": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": _EXTENSION_FIELDS,
                    },
                    "prompts": FILE_SCHEMA,
                },
            },
        },
    },
}


class Later(Submission):
    """A retry or an extension, and where to follow it."""

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
    idempotency_key: Key = None,
    unfinished: Annotated[
        bool, Query(description="Also what a cancelled or stopped job never rendered")
    ] = False,
) -> Later:
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
    return _later(done, response)


@router.post(
    "/jobs/{job_id}/extend",
    status_code=202,
    summary="Add repeats or rows",
    responses=responses(400, 404, 409, 413, 415, 422, 503),
    openapi_extra={"requestBody": _EXTENSION},
)
async def extend(
    job_id: JobId,
    request: Request,
    services: UsesServices,
    response: Response,
    idempotency_key: Key = None,
) -> Later:
    """More images of every row, or further rows with as many images as all others have.

    As new shards of a dataset that is complete; those that are there stay as they are. Rows are
    what a job's may be: with settings of their own, from a template, a file, a place in S3. Seeds
    and pictures are those of a job that asked for all at once. The extension has an id of its own,
    which all routes of a job take; index, timing and card are written anew when it has ended.
    """
    key = idempotency_key if idempotency_key is not None else uuid.uuid4().hex
    if is_form(request):
        async with read_form(request) as (text, prompts):
            wanted = extension_request(parse_object(text, "job"))
            rows = read_rows(prompts.file, prompts.source, prompts.name, wanted.source)
            done = await run_in_threadpool(extended, services, job_id, wanted, rows, key)
    else:
        body = await read_object(request)
        done = await run_in_threadpool(_extend_by_body, services, job_id, body, key)
    return _later(done, response)


def _extend_by_body(services: Services, job_id: str, body: dict[str, Any], key: str) -> Submission:
    field = check_sources(body)
    wanted = extension_request({name: value for name, value in body.items() if name not in SOURCES})
    if field not in body:
        return extended(services, job_id, wanted, None, key)
    with opened(services, field, body[field], wanted.source) as rows:
        return extended(services, job_id, wanted, rows, key)


def extended(
    services: Services,
    job_id: str,
    wanted: ExtensionRequest,
    rows: Iterable[Row] | Template | None,
    key: str,
) -> Submission:
    """Add repeats or rows; raises what `extend_job` does."""
    services.views.accepted(job_id)
    return extend_job(
        services.store,
        services.queue,
        services.catalog,
        prefix=services.settings.s3_prefix,
        tenant=services.tenant,
        job_id=job_id,
        request=wanted,
        rows=rows,
        idempotency_key=key,
        now_ms=time.time_ns() // 1_000_000,
        quota=services.visitor.quota,
        allowance=services.house.allowance,
    )


def extension_request(fields: dict[str, Any]) -> ExtensionRequest:
    """What these fields ask for; raises Refused naming the first that is wrong."""
    try:
        # Through JSON text, because strict values take lists for tuples only from there.
        return ExtensionRequest.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise_invalid(error, "")


def _later(done: Submission, response: Response) -> Later:
    path = f"/v1/jobs/{done.id}"
    response.headers["Location"] = path
    links = {"status": path, "events": f"{path}/events", "cancel": f"{path}/cancel"}
    return Later(**done.model_dump(), links=links)
