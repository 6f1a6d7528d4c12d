"""Pictures for the page: one as it is, or small; a plain frame where there is none."""

import re

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response

from jobs.api.routes_coverage import ShardNumber
from jobs.api.routes_items import ImageIndex
from jobs.api.routes_jobs import JobId
from jobs.errors import NotFound
from jobs.page.rendering import STATIC
from jobs.page.route import PageRoute
from jobs.page.visitor import LooksAtPictures
from jobs.pictures import PictureFile

router = APIRouter(route_class=PageRoute, prefix="/jobs/{job_id}", tags=["page"])

#: Kept by the browser, and asked for again each time: who has signed out sees none of them.
_KEPT = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
#: A tag of a picture's as we give it.
_TAG = re.compile(r'"[0-9a-f]{64}(-\d+)?"')
_MISSING = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@router.get("/cover")
async def cover(request: Request, job_id: JobId, services: LooksAtPictures) -> Response:
    """The first picture of the job, small."""

    def make() -> Response:
        try:
            found = services.house.thumbnails.first(services.views.layout(job_id))
        except NotFound:
            services.views.accepted(job_id)
            return _frame()
        # It may be another one than a moment ago.
        same = request.headers.get("if-none-match") == f'"{found.sha256}"'
        return _unchanged() if same else _sent(found)

    return await run_sync(make, limiter=services.house.makers)


@router.get("/pictures/{image}/thumb")
async def thumb(
    request: Request, job_id: JobId, image: ImageIndex, services: LooksAtPictures
) -> Response:
    """A picture, small."""

    def make() -> Response:
        job, layout = services.views.accepted(job_id), services.views.layout(job_id)
        if _has_it(request):
            return _unchanged()
        try:
            return _sent(services.house.thumbnails.read(layout, job, image))
        except NotFound:
            return _frame()

    return await run_sync(make, limiter=services.house.makers)


@router.get("/shards/{shard}/sheet")
async def sheet(job_id: JobId, shard: ShardNumber, services: LooksAtPictures) -> Response:
    """The contact sheet of a shard."""

    def make() -> Response:
        job, layout = services.views.accepted(job_id), services.views.layout(job_id)
        try:
            return _sent(services.house.sheets.read(layout, job, shard))
        except NotFound:
            return _frame()

    return await run_sync(make, limiter=services.house.makers)


@router.get("/pictures/{image}/file")
def file(request: Request, job_id: JobId, image: ImageIndex, services: LooksAtPictures) -> Response:
    """A picture as it lies in its shard."""
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    if _has_it(request):
        return _unchanged()
    return _sent(services.house.pictures.read(layout, job, image))


def _has_it(request: Request) -> bool:
    """Whether the browser has the picture already: a committed one never changes."""
    return _TAG.fullmatch(request.headers.get("if-none-match", "")) is not None


def _unchanged() -> Response:
    return Response(status_code=304, headers=_KEPT)


def _sent(found: PictureFile) -> Response:
    headers = _KEPT | {"ETag": f'"{found.sha256}"'}
    return Response(found.data, media_type=found.media_type, headers=headers)


def _frame() -> Response:
    """An empty frame: an image may have failed, or not be there yet."""
    return Response(
        (STATIC / "no-picture.svg").read_bytes(), media_type="image/svg+xml", headers=_MISSING
    )
