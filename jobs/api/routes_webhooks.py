"""Routes of webhooks: who is told, and what became of each message."""

import time
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from jobs.api.openapi import body_of, read_body
from jobs.api.problems import responses
from jobs.api.services import Services, UsesServices
from jobs.errors import Conflict, Forbidden
from jobs.recipe import Frozen
from jobs.webhook_guard import checked_url
from jobs.webhook_outbox import Delivery, State
from jobs.webhooks import HOOK_ID, USUAL, Hook, Kind

router = APIRouter(prefix="/v1", tags=["webhooks"])

#: Webhooks of one tenant.
HOOKS_MAX = 20
HookId = Annotated[
    str, Path(pattern=HOOK_ID, examples=[f"hook_{'0' * 24}"], description="A webhook's id")
]


class NewHook(Frozen):
    """Where to send, and what."""

    url: str = Field(max_length=2_000, description="https alone, and no private address")
    events: tuple[Kind, ...] = Field(default=USUAL, min_length=1, max_length=10, strict=False)


class HookView(BaseModel):
    """A webhook; its secret is shown when it is made, and never again."""

    id: str
    url: str
    events: list[Kind]
    created_ms: int
    secret: str | None = Field(default=None, description="Verifies signatures; shown once")


class Hooks(BaseModel):
    """A tenant's webhooks."""

    webhooks: list[HookView]


class Deliveries(BaseModel):
    """Messages of the last seven days, newest first."""

    deliveries: list[Delivery]


@router.post(
    "/webhooks",
    status_code=201,
    summary="Add a webhook",
    responses=responses(400, 409, 413, 415, 422),
    openapi_extra=body_of(NewHook, {"url": "https://example.org/hook"}),
)
async def add_hook(request: Request, services: UsesServices) -> HookView:
    """Messages are signed as Standard Webhooks says, and repeated for a day until a 2xx comes."""
    asked = await read_body(request, NewHook)
    return await run_in_threadpool(_add, services, asked)


@router.get("/webhooks", summary="List webhooks")
def list_hooks(services: UsesServices) -> Hooks:
    """Oldest first, without their secrets."""
    return Hooks(webhooks=[_view(hook) for hook in services.house.hooks.of(services.tenant)])


@router.get("/webhooks/deliveries", summary="List deliveries", responses=responses(422))
def list_deliveries(
    services: UsesServices,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Deliveries at most")] = 100,
) -> Deliveries:
    """What was sent, what waits for its next try, and what is dead, with the reason."""
    found = services.house.outbox.deliveries(services.tenant, state, limit)
    return Deliveries(deliveries=found)


@router.delete("/webhooks/{webhook_id}", summary="Delete a webhook", responses=responses(404, 422))
def delete_hook(webhook_id: HookId, services: UsesServices) -> HookView:
    """Nothing more is sent there."""
    hook = services.house.hooks.get(services.tenant, webhook_id)
    services.house.hooks.delete(services.tenant, webhook_id)
    return _view(hook)


def _add(services: Services, asked: NewHook) -> HookView:
    reach = services.settings.webhooks
    url = checked_url(asked.url, reach)
    if reach == "off":
        raise Forbidden("webhooks are off here", where="url", remedy="set FEWSTEP_WEBHOOKS=https")
    if len(services.house.hooks.of(services.tenant)) >= HOOKS_MAX:
        raise Conflict(f"there are {HOOKS_MAX} webhooks already", remedy="delete one first")
    now_ms = time.time_ns() // 1_000_000
    hook = services.house.hooks.add(services.tenant, url, asked.events, now_ms)
    return _view(hook).model_copy(update={"secret": hook.secret})


def _view(hook: Hook) -> HookView:
    return HookView(id=hook.id, url=hook.url, events=list(hook.events), created_ms=hook.created_ms)
