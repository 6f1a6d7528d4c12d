"""Pictures for the page: one as it is, or small; a plain frame where there is none."""

from fastapi import APIRouter
from fastapi.responses import Response

from jobs.api.routes_items import ImageIndex
from jobs.api.routes_jobs import JobId
from jobs.errors import NotFound
from jobs.page.rendering import STATIC
from jobs.page.route import PageRoute
from jobs.page.visitor import LooksAtPictures
from jobs.pictures import PictureFile

router = APIRouter(route_class=PageRoute, prefix="/jobs/{job_id}", tags=["page"])

#: A committed picture never changes.
_KEPT = {"Cache-Control": "private, max-age=86400, immutable", "X-Content-Type-Options": "nosniff"}
#: The first picture so far may be another a moment later.
_MOVING = _KEPT | {"Cache-Control": "private, no-cache"}
_MISSING = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@router.get("/cover")
def cover(job_id: JobId, services: LooksAtPictures) -> Response:
    """The first picture of the job, small."""
    try:
        return _sent(services.house.thumbnails.first(services.views.layout(job_id)), final=False)
    except NotFound:
        services.views.accepted(job_id)
        return _frame()


@router.get("/pictures/{image}/thumb")
def thumb(job_id: JobId, image: ImageIndex, services: LooksAtPictures) -> Response:
    """A picture, small."""
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    try:
        return _sent(services.house.thumbnails.read(layout, job, image))
    except NotFound:
        return _frame()


@router.get("/pictures/{image}/file")
def file(job_id: JobId, image: ImageIndex, services: LooksAtPictures) -> Response:
    """A picture as it lies in its shard."""
    job, layout = services.views.accepted(job_id), services.views.layout(job_id)
    return _sent(services.house.pictures.read(layout, job, image))


def _sent(found: PictureFile, *, final: bool = True) -> Response:
    headers = (_KEPT if final else _MOVING) | {"ETag": f'"{found.sha256}"'}
    return Response(found.data, media_type=found.media_type, headers=headers)


def _frame() -> Response:
    """An empty frame: an image may have failed, or not be there yet."""
    return Response(
        (STATIC / "no-picture.svg").read_bytes(), media_type="image/svg+xml", headers=_MISSING
    )
