"""OpenAI's image route: a small job that goes before others, and its pictures at once."""

import asyncio
import base64
import hashlib
import time
import uuid
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.concurrency import run_in_threadpool

from jobs.api.openai_form import cancelled, responses
from jobs.api.openapi import body_of, read_body
from jobs.api.services import Services, UsesServices
from jobs.api.sse import EventFan
from jobs.errors import Conflict, NoCapacity, RenderFailed
from jobs.facade.outputs import failure_of, pictures_of
from jobs.facade.reading import job_request, row_of
from jobs.facade.values import ImageBody, Picture, Pictures
from jobs.items import item_page
from jobs.job import JobRequest
from jobs.rows import Row
from jobs.states import JobState

router = APIRouter(prefix="/v1", tags=["OpenAI"])

PRIORITY = 9
#: Jobs of one key, each after the one before was cancelled.
TRIES = 20
#: Without news the job is looked at so often.
LOOK_S = 1.0


@router.post(
    "/images/generations",
    summary="Make pictures now",
    responses=responses(400, 409, 413, 415, 422, 500),
    response_model_exclude_none=True,
    openapi_extra=body_of(ImageBody, {"model": "tiny", "prompt": "a red circle", "size": "64x64"}),
)
async def make_images(
    request: Request,
    services: UsesServices,
    idempotency_key: Annotated[
        str | None, Header(max_length=128, description="The same key is the same job")
    ] = None,
) -> Pictures:
    """Wait until the pictures are made, or until the operator's limit: then 503, and no job stays.

    `url` by default: a link that works for an hour. Fields of OpenAI's that mean nothing here are
    refused, so that nobody relies on them.
    """
    body = await read_body(request, ImageBody)
    wanted = job_request(body, services.catalog, priority=PRIORITY)
    key = idempotency_key if idempotency_key is not None else f"images-{uuid.uuid4().hex}"
    job_id = await run_in_threadpool(_submitted, services, wanted, row_of(body), key)
    try:
        await _made(request, services, job_id)
    except BaseException:
        # Nobody waits for it any more.
        with suppress(Exception):
            await asyncio.shield(run_in_threadpool(cancelled, services, job_id))
        raise
    base = str(request.base_url).rstrip("/")
    return await run_in_threadpool(_answer, services, job_id, body, base)


def _submitted(services: Services, wanted: JobRequest, row: Row, key: str) -> str:
    """The job of this key; where it was cancelled (nobody waited for it any more), the next one.

    Raises Conflict where that has happened `TRIES` times.
    """
    # Not by counting: whoever asks twice at once must get the same job.
    names = [key, *(f"images-{_digest(key)}-{number}" for number in range(1, TRIES))]
    for name in names:
        job_id = services.submit(wanted, [row], name).id
        if services.views.view(job_id).state not in (JobState.CANCELLING, JobState.CANCELLED):
            return job_id
    raise Conflict(
        f"{TRIES} jobs of this key were cancelled", where="Idempotency-Key", remedy="take a new key"
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


async def _made(request: Request, services: Services, job_id: str) -> None:
    """Return once every image is accounted for; raises NoCapacity when that takes too long."""
    fan: EventFan = request.app.state.fan
    limit = services.settings.images_wait_s
    end = time.monotonic() + limit
    with fan.listening(job_id) as news:
        while not await run_in_threadpool(_accounted, services, job_id):
            left = end - time.monotonic()
            if left <= 0 or await request.is_disconnected():
                raise NoCapacity(
                    f"the pictures were not made within {limit:g} s",
                    remedy="send it again later, or as a batch",
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(news.get(), min(LOOK_S, left))


def _accounted(services: Services, job_id: str) -> bool:
    record = services.queue.job(job_id)
    # Forgotten: it ended long ago, and was asked for again with its key.
    return record is None or record.accounted or bool(record.outcome)


def _answer(services: Services, job_id: str, body: ImageBody, base: str) -> Pictures:
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    items = list(item_page(services.store, layout, job, first=0, limit=job.images).items)
    if not all(item.status == "ok" for item in items):
        raise RenderFailed(failure_of(items), where=job_id)
    found: list[Picture] = []
    for item in items:
        if body.response_format == "url":
            shown = {"url": base + services.house.links.link(services.tenant, job_id, item.image)}
        else:
            data = services.house.pictures.read(layout, job, item.image).data
            shown = {"b64_json": base64.b64encode(data).decode()}
        found.append(Picture(**shown, seed=item.seed, sha256=item.sha256))
    return pictures_of(job, found)
