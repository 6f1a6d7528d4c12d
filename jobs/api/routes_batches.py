"""OpenAI's batch routes: many image requests in a file, made by our own queue."""

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool

from jobs.api.openai_form import batches_of, responses
from jobs.api.openapi import body_of, read_body
from jobs.api.services import UsesServices
from jobs.facade.values import BATCH_ID, ENDPOINT, BatchList, BatchView, NewBatch

router = APIRouter(prefix="/v1", tags=["OpenAI"])

BatchId = Annotated[
    str,
    Path(pattern=BATCH_ID, examples=["batch_019ab0123456a1b2c3d4e5f6"], description="A batch's id"),
]


@router.post(
    "/batches",
    summary="Start a batch",
    responses=responses(400, 404, 413, 415, 422),
    openapi_extra=body_of(
        NewBatch,
        {
            "input_file_id": "file-019ab0123456a1b2c3d4e5f6",
            "endpoint": ENDPOINT,
            "completion_window": "24h",
        },
    ),
)
async def create_batch(request: Request, services: UsesServices) -> BatchView:
    """Check the file and submit a job for each distinct recipe in it.

    A file with a mistake makes nothing: the batch is `failed`, and `errors` names the lines.
    """
    asked = await read_body(request, NewBatch)
    batches = await run_in_threadpool(batches_of, services, str(request.base_url))
    return await run_in_threadpool(batches.create, asked)


@router.get("/batches", summary="List batches", responses=responses(422))
def list_batches(
    request: Request,
    services: UsesServices,
    after: Annotated[str | None, Query(max_length=64, description="The last id before")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Batches at most")] = 20,
) -> BatchList:
    """Newest first."""
    batches = batches_of(services, str(request.base_url))
    # One more than the page, to know whether another follows.
    found = list(islice(batches.shelf.batches(after), limit + 1))
    page = [batches.look(one) for one in found[:limit]]
    return BatchList(
        data=tuple(page),
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(found) > limit,
    )


@router.get("/batches/{batch_id}", summary="Show a batch", responses=responses(404, 422))
def show_batch(batch_id: BatchId, request: Request, services: UsesServices) -> BatchView:
    """Its state and counts; once it has ended, the ids of its output and error file."""
    batches = batches_of(services, str(request.base_url))
    return batches.look(batches.shelf.batch(batch_id))


@router.post(
    "/batches/{batch_id}/cancel", summary="Cancel a batch", responses=responses(404, 409, 422)
)
def cancel_batch(batch_id: BatchId, request: Request, services: UsesServices) -> BatchView:
    """End its jobs. What is made by then is in the output file, the rest in the error file."""
    batches = batches_of(services, str(request.base_url))
    return batches.cancel(batches.shelf.batch(batch_id))
