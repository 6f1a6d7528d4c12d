"""The route that accepts jobs: prompts in the body, or a prompt file in a multipart form."""

import json
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import Field, ValidationError

from jobs.api.body import is_form, parse_object, read_form, read_object
from jobs.api.problems import raise_invalid, responses
from jobs.api.prompt_sources import (
    FILE_SCHEMA,
    SOURCE_SCHEMAS,
    SOURCES,
    check_fields,
    check_sources,
    object_of,
    opened,
)
from jobs.api.services import Services, UsesServices
from jobs.estimate import estimate_of
from jobs.job import DryRun, Estimate, JobRequest, Submission
from jobs.rows import Row
from jobs.sources.reading import read_rows
from jobs.submit import dry_run_job
from jobs.templates.expansion import MAX_COUNT
from jobs.templates.template import Template

router = APIRouter(prefix="/v1", tags=["jobs"])

#: Rows that a dry run shows, and seconds that it may read.
SHOWN = 10
DRY_RUN_S = 20.0

_JOB_SCHEMA = {"$ref": "#/components/schemas/JobRequest"}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "description": "One of `prompts`, `prompts_from` and `template`.",
                "properties": {
                    "job": _JOB_SCHEMA,
                    **SOURCE_SCHEMAS,
                },
            },
            "example": {
                "job": {"name": "shapes", "recipe": {"model": "tiny", "steps": 4}, "repeats": 2},
                "prompts": [
                    "a red circle on a white background",
                    {"prompt": "a big blue star", "seed": 7, "label": "star"},
                ],
            },
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["prompts"],
                "properties": {
                    "job": _JOB_SCHEMA,
                    "prompts": FILE_SCHEMA,
                },
            },
        },
    },
}


class Accepted(Submission):
    """A submission and where to go from here; of a dry run, what it would cost instead."""

    links: dict[str, str] = Field(
        description="Paths of the job's status, events, results and cancel"
    )
    estimate: Estimate | None = Field(default=None, description="Of a dry run alone")
    preview: tuple[Row, ...] = Field(
        default=(), strict=False, description="Of a dry run alone: up to ten of its rows"
    )


@router.post(
    "/jobs",
    status_code=202,
    summary="Submit a job",
    responses=responses(400, 409, 413, 415, 422, 503)
    | {200: {"model": Accepted, "description": "A dry run: nothing was written"}},
    openapi_extra={"requestBody": _BODY},
)
async def submit(
    request: Request,
    response: Response,
    services: UsesServices,
    idempotency_key: Annotated[
        str | None,
        Header(description="1 to 128 of A-Z a-z 0-9 . _ -; the same key is the same job"),
    ] = None,
    dry_run: Annotated[bool, Query(description="Check and count, write nothing")] = False,
    preview_first: Annotated[
        int, Query(ge=0, le=MAX_COUNT, description="The first row that a dry run shows")
    ] = 0,
) -> Accepted:
    """Check everything, write the prompts down, and let the job wait for renderers.

    Sent again with the same `Idempotency-Key` and body it is the same job; with another body it
    is refused (409). Without a key, every request is a new job.
    """
    key = idempotency_key if idempotency_key is not None else uuid.uuid4().hex
    glimpse = range(preview_first, preview_first + SHOWN) if dry_run else None
    if is_form(request):
        async with read_form(request) as (text, prompts):
            job = job_request(parse_object(text, "job"))
            rows = read_rows(prompts.file, prompts.source, prompts.name, job.source)
            done = await in_a_thread(services, glimpse, submit_rows, job, rows, key)
    else:
        body = await read_object(request)
        done = await in_a_thread(services, glimpse, _submit_body, body, key)
    path = f"/v1/jobs/{done.id}"
    if dry_run:
        response.status_code = 200
        return Accepted.model_validate(done.model_dump() | {"links": {}})
    response.headers["Location"] = path
    links = {name: f"{path}/{name}" for name in ("events", "results", "cancel")}
    return Accepted(**done.model_dump(), links={"status": path, **links})


def _submit_body(
    services: Services, body: dict[str, Any], key: str, glimpse: range | None
) -> Submission:
    check_fields(body, {"job", *SOURCES}, "body")
    given = check_sources(body)
    job = job_request(object_of(body.get("job", {}), "job"))
    with opened(services, given, body.get(given), job.source) as rows:
        return submit_rows(services, job, rows, key, glimpse)


async def in_a_thread(
    services: Services,
    glimpse: range | None,
    submit: Callable[..., Submission],
    *arguments: object,
) -> Submission:
    """Run `submit(services, *arguments, glimpse)` in a thread: a dry run in one of a few."""
    limiter = None if glimpse is None else services.house.checkers
    return await run_sync(partial(submit, services, *arguments, glimpse), limiter=limiter)


def submit_rows(
    services: Services,
    job: JobRequest,
    rows: Iterable[Row] | Template,
    key: str,
    glimpse: range | None,
) -> Submission:
    """Submit; with a `glimpse`, a dry run that shows these of its rows. Raises what both do."""
    if glimpse is not None:
        shown: list[Row] = []
        found = dry_run_job(
            services.catalog,
            tenant=services.tenant,
            request=job,
            rows=rows,
            idempotency_key=key,
            glimpse=glimpse,
            shown=shown,
            within_s=DRY_RUN_S,
        )
        recipe, hour = services.catalog.resolve(job.recipe), services.settings.device_hour_price
        images = found.images * found.relative_cost
        estimate = estimate_of(services.queue, recipe, images, hour)
        return DryRun(**found.model_dump(), estimate=estimate, preview=tuple(shown))
    return services.submit(job, rows, key)


def job_request(fields: dict[str, Any]) -> JobRequest:
    """The request of these fields; raises Refused naming the first that is wrong."""
    try:
        # Through JSON text, because strict values take lists for tuples only from there.
        return JobRequest.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise_invalid(error, "job")
