"""OpenAI's routes in our API: their bodies, their errors, and what they stand on."""

from typing import Any

from pydantic import BaseModel

from jobs.api.services import Services
from jobs.control import steer
from jobs.errors import NotFound
from jobs.facade.batches import Batches
from jobs.facade.shelf import Shelf
from jobs.states import TERMINAL

#: Links in a batch's output open their pictures for so long, in seconds.
BATCH_LINK_S = 7 * 24 * 3600


class OpenAIError(BaseModel):
    """What went wrong, in OpenAI's form."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIProblem(BaseModel):
    """The body of every reply of these routes that is not a success."""

    error: OpenAIError


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error replies of a route, for its OpenAPI entry."""
    return {status: {"model": OpenAIProblem} for status in (401, 403, 429, 503, *statuses)}


def shelf_of(services: Services) -> Shelf:
    """The tenant's files and batches."""
    return Shelf(services.store, services.settings.s3_prefix, services.tenant)


def batches_of(services: Services, base_url: str) -> Batches:
    """The tenant's batches; links in their output begin with `base_url`."""
    links, tenant = services.house.links, services.tenant

    def address(job_id: str, image: int) -> str:
        return base_url.rstrip("/") + links.link(tenant, job_id, image, BATCH_LINK_S)

    def cancel(job_id: str) -> None:
        cancelled(services, job_id)

    return Batches(
        shelf_of(services), services.views, services.catalog, services.submit, cancel, address
    )


def cancelled(services: Services, job_id: str) -> None:
    """End a job of the tenant's, if it has not ended."""
    try:
        state = services.views.view(job_id).state
    except NotFound:
        return
    if state not in TERMINAL:
        steer(services.queue, services.store, services.views.layout(job_id), job_id, "cancel")
