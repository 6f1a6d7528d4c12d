"""Webhooks: who is told of which events, kept in the store, and what a message says."""

import base64
import hashlib
import json
import secrets
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from jobs.errors import NotFound
from jobs.events import Event
from jobs.recipe import Frozen
from jobs.store import Store

Kind = Literal[
    "job.started",
    "job.completed",
    "job.stopped",
    "job.failed",
    "job.cancelled",
    "shard.committed",
]
#: What a webhook is told where it does not say.
USUAL: tuple[Kind, ...] = (
    "job.started",
    "job.completed",
    "job.stopped",
    "job.failed",
    "job.cancelled",
)
HOOK_ID = r"^hook_[0-9a-f]{24}$"

_ENDS: dict[str, Kind] = {
    "done": "job.completed",
    "stopped": "job.stopped",
    "failed": "job.failed",
    "cancelled": "job.cancelled",
}


class Hook(Frozen):
    """A webhook of one tenant. The secret signs messages, so it is kept as it is."""

    id: str = Field(pattern=HOOK_ID)
    tenant: str
    url: str
    events: tuple[Kind, ...] = Field(strict=False)
    secret: str
    created_ms: int


class Message(Frozen):
    """What is sent, and the id under which it is sent however often that takes."""

    id: str
    kind: Kind
    body: str


class HookStore:
    """Webhooks under `<prefix>/_webhooks/<tenant>/<id>.json`."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._root = store, f"{prefix}/_webhooks/"

    def add(self, tenant: str, url: str, events: tuple[Kind, ...], now_ms: int) -> Hook:
        """Keep a new webhook, with a secret of its own."""
        hook = Hook(
            id=f"hook_{secrets.token_hex(12)}",
            tenant=tenant,
            url=url,
            events=events,
            secret=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
            created_ms=now_ms,
        )
        data = hook.model_dump_json(indent=1).encode()
        self._store.put(self._key(tenant, hook.id), data, content_type="application/json")
        return hook

    def of(self, tenant: str) -> list[Hook]:
        """A tenant's webhooks, oldest first."""
        keys = [found.key for found in self._store.list(f"{self._root}{tenant}/")]
        found = [Hook.model_validate_json(self._store.get(key)) for key in keys]
        return sorted(found, key=lambda hook: hook.created_ms)

    def get(self, tenant: str, hook_id: str) -> Hook:
        """A tenant's webhook; raises NotFound."""
        try:
            return Hook.model_validate_json(self._store.get(self._key(tenant, hook_id)))
        except NotFound as error:
            raise NotFound("there is no such webhook", where=hook_id) from error

    def delete(self, tenant: str, hook_id: str) -> None:
        """Tell it nothing more; raises NotFound."""
        self.get(tenant, hook_id)
        self._store.delete([self._key(tenant, hook_id)])

    def _key(self, tenant: str, hook_id: str) -> str:
        return f"{self._root}{tenant}/{hook_id}.json"


def kind_of(event: Event) -> Kind | None:
    """What an event of the queue is to the outside; None: nothing."""
    if event.type == "claimed":
        return "job.started"
    if event.type == "done":
        return "shard.committed"
    return _ENDS.get(event.fields.get("outcome", "")) if event.type == "finished" else None


def message_of(hook: Hook, event: Event, kind: Kind) -> Message:
    """The message for a webhook. The same thing that happened has the same id."""
    # Every claim of a job's says that it has started: the id lets the first one through.
    # A job may stop at more than one limit, one after the other.
    what = event.id if kind in ("shard.committed", "job.stopped") else "once"
    digest = hashlib.sha256(f"{hook.id}|{event.job_id}|{kind}|{what}".encode()).hexdigest()
    data = {
        "job": event.job_id,
        "images": event.images,
        "done": event.done,
        "failed": event.failed + event.dead,
        "status": f"/v1/jobs/{event.job_id}",
    }
    if kind == "shard.committed":
        data["unit"] = event.unit
    if event.fields.get("reason"):
        data["reason"] = event.fields["reason"]
    moment = datetime.fromtimestamp(event.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    body = json.dumps({"type": kind, "timestamp": moment, "data": data}, separators=(",", ":"))
    return Message(id=f"msg_{digest[:32]}", kind=kind, body=body)
