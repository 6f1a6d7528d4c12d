"""OpenAI's file routes: the inputs of batches, and what batches made."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from jobs.api.body import read_upload
from jobs.api.openai_form import responses, shelf_of
from jobs.api.services import UsesServices
from jobs.facade.shelf import Shelf
from jobs.facade.values import FILE_ID, MAX_FILE, FileGone, FileList, FileView

router = APIRouter(prefix="/v1", tags=["OpenAI"])

FileId = Annotated[
    str,
    Path(pattern=FILE_ID, examples=["file-019ab0123456a1b2c3d4e5f6"], description="A file's id"),
]
After = Annotated[str | None, Query(max_length=64, description="The last id of the page before")]
_CHUNK = 1 << 20

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "contentMediaType": "application/octet-stream",
                            "description": "JSONL, a request a line",
                        },
                        "purpose": {"type": "string", "enum": ["batch"]},
                    },
                }
            }
        },
    }
}


@router.post(
    "/files",
    summary="Upload a file",
    responses=responses(400, 413, 415, 422),
    openapi_extra=_BODY,
)
async def upload_file(request: Request, services: UsesServices) -> FileView:
    """Keep the input of a batch: JSONL with `custom_id`, `method`, `url` and `body`."""
    async with read_upload(request, MAX_FILE) as (name, content):
        return await run_in_threadpool(shelf_of(services).add_file, content, name)


@router.get("/files", summary="List files", responses=responses(422))
def list_files(
    services: UsesServices,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Files at most")] = 1_000,
    purpose: Annotated[str | None, Query(max_length=40, description="batch, batch_output")] = None,
) -> FileList:
    """Newest first."""
    files = shelf_of(services).files(after)
    # One more than the page, to know whether another follows.
    found = list(islice((one for one in files if purpose in (None, one.purpose)), limit + 1))
    page = found[:limit]
    return FileList(
        data=tuple(page),
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(found) > limit,
    )


@router.get("/files/{file_id}", summary="Show a file", responses=responses(404, 422))
def show_file(file_id: FileId, services: UsesServices) -> FileView:
    """Its name, size and purpose."""
    return shelf_of(services).file(file_id)


@router.get(
    "/files/{file_id}/content",
    summary="Read a file",
    response_class=StreamingResponse,
    responses=responses(404, 422)
    | {
        200: {
            "description": "The file's bytes",
            "content": {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
def read_file(file_id: FileId, services: UsesServices) -> StreamingResponse:
    """A batch's output: a line for each request, in no promised order."""
    chunks = _chunks(shelf_of(services), file_id)
    # The first is taken here, so that a file that is not there is a 404.
    first = next(chunks, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from chunks

    return StreamingResponse(rest(), media_type="application/jsonl")


@router.delete("/files/{file_id}", summary="Delete a file", responses=responses(404, 422))
def delete_file(file_id: FileId, services: UsesServices) -> FileGone:
    """Delete it for good; jobs that were made from it are not touched."""
    shelf_of(services).delete_file(file_id)
    return FileGone(id=file_id)


def _chunks(shelf: Shelf, file_id: str) -> Iterator[bytes]:
    with shelf.opened(file_id) as file:
        while chunk := file.read(_CHUNK):
            yield chunk
