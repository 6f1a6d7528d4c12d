"""Routes of single images: what became of each, and its picture."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials

from jobs.api.house import UsesHouse
from jobs.api.problems import responses
from jobs.api.routes_jobs import JobId
from jobs.api.services import Services, UsesServices
from jobs.api.visitor import BEARER, Visitor, visitor_of
from jobs.items import ItemPage, item_page, items_of
from jobs.round_items import round_page
from jobs.rounds import Accepted, read_extent, read_round
from jobs.search import search_images
from jobs.specs import round_number

router = APIRouter(prefix="/v1", tags=["jobs"])

ImageIndex = Annotated[int, Path(ge=0, le=10**13, description="The image's index in its job")]


@router.get("/jobs/{job_id}/items", summary="Images one by one", responses=responses(404, 422, 503))
def job_items(
    job_id: JobId,
    services: UsesServices,
    first: Annotated[int, Query(ge=0, le=10**13, description="`next` of the last page")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Images at most")] = 100,
    prompt: Annotated[
        str, Query(max_length=200, description="Only those whose prompt holds this text")
    ] = "",
) -> ItemPage:
    """Each image's row, seed, state and error, and a link to its picture; also while the job runs.

    Images whose shard is not committed are `pending`. A page of a job with tiny shards may be
    short of `limit`, and so may one of a search, which reads 20,000 rows at a time. Of a retry or
    an extension (`ID-r1`) it is its own images, as the job has them now; `first` counts them.
    """
    page = items_page(services, job_id, first=first, limit=limit, prompt=prompt)
    links = services.house.links
    shown = tuple(
        item.model_copy(update={"link": links.link(services.tenant, job_id, item.image)})
        if item.status == "ok"
        else item
        for item in page.items
    )
    return ItemPage(items=shown, next=page.next)


def items_page(
    services: Services, job_id: str, *, first: int, limit: int, prompt: str = ""
) -> ItemPage:
    """Images from `first` on, or those of them whose prompt holds a text; without links.

    Of a later round its own: raises InvalidInput for one that renders nothing.
    """
    views, store = services.views, services.store
    job, layout = views.accepted(job_id), views.layout(job_id)
    if number := round_number(job_id):
        accepted = Accepted(job, read_round(store, layout, number))
        return round_page(store, layout, accepted, first=first, limit=limit, prompt=prompt)
    if not prompt:
        return item_page(store, layout, job, first=first, limit=limit)
    extent = read_extent(store, layout, job)
    found, after = search_images(store, extent, prompt, first=first, limit=limit)
    return ItemPage(items=items_of(store, layout, job, found, extent), next=after)


def picture_services(
    request: Request,
    house: UsesHouse,
    job_id: JobId,
    image: ImageIndex,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
    of: Annotated[str, Query(max_length=40, description="From the link")] = "",
    until: Annotated[int, Query(ge=0, le=10**11, description="From the link")] = 0,
    seal: Annotated[str, Query(max_length=64, description="From the link")] = "",
) -> Services:
    """Who asks for a picture: whoever holds its link, or a key."""
    if not seal:
        return Services(house, visitor_of(request, credentials))
    house.links.check(of, job_id, image, until, seal)
    return Services(house, Visitor(of, ("read",)))


@router.get(
    "/jobs/{job_id}/items/{image}/picture",
    summary="A picture",
    response_class=Response,
    responses=responses(404, 422, 503)
    | {
        200: {
            "description": "The picture's file",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("image/png", "image/jpeg", "image/webp")
            },
        }
    },
)
def job_picture(
    job_id: JobId, image: ImageIndex, services: Annotated[Services, Depends(picture_services)]
) -> Response:
    """The file as it lies in its shard. An item's `link` opens it without a key for an hour."""
    job = services.views.accepted(job_id)
    found = services.house.pictures.read(services.views.layout(job_id), job, image)
    headers = {
        "Cache-Control": "private, max-age=3600, immutable",
        "ETag": f'"{found.sha256}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(found.data, media_type=found.media_type, headers=headers)
