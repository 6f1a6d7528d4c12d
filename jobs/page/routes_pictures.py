"""Pictures for the page: one as it is, or small; a plain frame where there is none."""

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
        return _sent(request, found)

    return await run_sync(make, limiter=services.house.makers)


@router.get("/pictures/{image}/thumb")
async def thumb(
    request: Request, job_id: JobId, image: ImageIndex, services: LooksAtPictures
) -> Response:
    """A picture, small."""

    def make() -> Response:
        job, layout = services.views.accepted(job_id), services.views.layout(job_id)
        try:
            # Before the browser is told to show what it has: it may have been deleted since.
            manifest, place = services.house.pictures.locate(layout, job, image)
            if _has_it(request, place.sha256):
                return _unchanged()
            return _sent(request, services.house.thumbnails.read(layout, manifest, place))
        except NotFound:
            return _frame()

    return await run_sync(make, limiter=services.house.makers)


@router.get("/shards/{shard}/sheet")
async def sheet(
    request: Request, job_id: JobId, shard: ShardNumber, services: LooksAtPictures
) -> Response:
    """The contact sheet of a shard."""

    def make() -> Response:
        job, layout = services.views.accepted(job_id), services.views.layout(job_id)
        try:
            return _sent(request, services.house.sheets.read(layout, job, shard))
        except NotFound:
            return _frame()

    return await run_sync(make, limiter=services.house.makers)


@router.get("/pictures/{image}/file")
def file(request: Request, job_id: JobId, image: ImageIndex, services: LooksAtPictures) -> Response:
    """A picture as it lies in its shard."""
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    manifest, place = services.house.pictures.locate(layout, job, image)
    if _has_it(request, place.sha256):
        return _unchanged()
    return _sent(request, services.house.pictures.fetch(layout, manifest, place))


def _has_it(request: Request, sha256: str) -> bool:
    """Whether the browser has this picture already, as it is or small."""
    tag = request.headers.get("if-none-match", "").strip('"')
    return tag.partition("-")[0] == sha256


def _unchanged() -> Response:
    return Response(status_code=304, headers=_KEPT)


def _sent(request: Request, found: PictureFile) -> Response:
    if request.headers.get("if-none-match") == f'"{found.sha256}"':
        return _unchanged()
    headers = _KEPT | {"ETag": f'"{found.sha256}"'}
    return Response(found.data, media_type=found.media_type, headers=headers)


def _frame() -> Response:
    """An empty frame: an image may have failed, or not be there yet."""
    return Response(
        (STATIC / "no-picture.svg").read_bytes(), media_type="image/svg+xml", headers=_MISSING
    )
