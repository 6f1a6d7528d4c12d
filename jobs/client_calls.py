"""What each verb of the client sends and how its answer is read: values, without any wire."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from jobs.client_upload import BodyUpload, Upload
from jobs.errors import InvalidInput
from jobs.job import DryRun, JobView, Submission
from jobs.original import Original

#: A retry is listed before it is accepted: minutes for millions of failed images.
RETRY_TIMEOUT_S = 600.0
#: Sending a large prompt file and having it checked may take this long.
SUBMIT_TIMEOUT_S = 1_800.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request, which may be sent again where its reply was lost, and how to read the reply."""

    method: str
    path: str
    read: Callable[[dict[str, Any]], Answer]
    #: Further arguments of httpx's `request`.
    more: dict[str, Any] = field(default_factory=dict)
    upload: Upload | BodyUpload | None = None
    #: Whether it may run twice without harm.
    twice: bool = True

    def arguments(self) -> dict[str, Any]:
        """All of httpx's arguments; rewinds what is uploaded."""
        body = self.upload.fields(SUBMIT_TIMEOUT_S) if self.upload else {}
        return self.more | body


@dataclass(frozen=True)
class Pages(Generic[Answer]):
    """A list that comes in pages: the first call, and where the next page begins."""

    call: Call[list[Answer]]
    #: The parameter that asks for the next page, and its name in a reply.
    asks: str
    tells: str

    def after(self, reply: dict[str, Any]) -> "Pages[Answer] | None":
        """The pages behind one; None: it was the last."""
        if reply.get(self.tells) is None:
            return None
        params = self.call.more["params"] | {self.asks: reply[self.tells]}
        return replace(self, call=replace(self.call, more={"params": params}))


def path_of(job_id: str, rest: str = "") -> str:
    """Where a job, or something of it, is found, whatever the id holds; raises InvalidInput."""
    if not job_id:
        raise InvalidInput("the job's id is empty", where="id", remedy="`submit` told it")
    path = f"/v1/jobs/{quote(job_id, safe='')}"
    return f"{path}/{rest}" if rest else path


def submit(upload: Upload | BodyUpload, key: str | None) -> Call[Submission]:
    """Submit a job; without a key one is drawn."""
    more = {"headers": {"Idempotency-Key": _key(key)}}
    return Call("POST", "/v1/jobs", _submission, more, upload)


def dry_run(upload: Upload | BodyUpload, first: int) -> Call[DryRun]:
    """Check and count a job, and show some rows from `first` on."""
    params = {"dry_run": "true", "preview_first": str(first)}
    return Call("POST", "/v1/jobs", _dry_run, {"params": params}, upload)


def job(job_id: str) -> Call[JobView]:
    """Show a job."""
    return Call("GET", path_of(job_id), view_of)


def cancel(job_id: str, *, delete: bool) -> Call[JobView]:
    """Cancel a job."""
    params = {"shards": "delete"} if delete else {}
    return Call("POST", path_of(job_id, "cancel"), view_of, {"params": params})


def steer(job_id: str, verb: str) -> Call[JobView]:
    """Pause or resume a job."""
    return Call("POST", path_of(job_id, verb), view_of)


def set_priority(job_id: str, priority: int) -> Call[JobView]:
    """Change a job's priority."""
    return Call("PATCH", path_of(job_id), view_of, {"json": {"priority": priority}})


def set_budget(job_id: str, limits: dict[str, Any]) -> Call[JobView]:
    """Change a job's limits."""
    told = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in limits.items()
    }
    return Call("PATCH", path_of(job_id), view_of, {"json": told})


def retry_failed(job_id: str, *, unfinished: bool, key: str | None) -> Call[Submission]:
    """Retry a job's images without a picture."""
    more = {
        "headers": {"Idempotency-Key": _key(key)},
        "params": {"unfinished": "true"} if unfinished else {},
        "timeout": RETRY_TIMEOUT_S,
    }
    return Call("POST", path_of(job_id, "retry-failed"), _submission, more)


def extend(
    job_id: str, repeats: int, upload: Upload | BodyUpload | None, key: str | None
) -> Call[Submission]:
    """Add repeats, or the rows of an upload, to a dataset."""
    more: dict[str, Any] = {"headers": {"Idempotency-Key": _key(key)}, "timeout": RETRY_TIMEOUT_S}
    more |= {} if upload else {"json": {"repeats": repeats}}
    return Call("POST", path_of(job_id, "extend"), _submission, more, upload)


def drop(job_id: str, where: str, *, dry_run: bool, key: str | None) -> Call[dict[str, Any]]:
    """Take rows out of a dataset, or only count them."""
    more = {
        "headers": {"Idempotency-Key": _key(key)},
        "params": {"dry_run": "true"} if dry_run else {},
        "json": {"where": where},
        "timeout": SUBMIT_TIMEOUT_S,
    }
    return Call("POST", path_of(job_id, "drop"), dict, more)


def undo_drop(job_id: str) -> Call[dict[str, Any]]:
    """Take the last drop back."""
    more = {"timeout": SUBMIT_TIMEOUT_S}
    return Call("POST", path_of(job_id, "undo-drop"), dict, more, twice=False)


def timing(job_id: str) -> Call[dict[str, Any]]:
    """A job's timing."""
    return house(path_of(job_id, "timing"))


def house(path: str) -> Call[dict[str, Any]]:
    """Anything that is shown as it comes."""
    return Call("GET", path, dict)


def jobs(limit: int, **filters: str | None) -> Pages[JobView]:
    """Lists of jobs."""
    params = {name: value for name, value in filters.items() if value is not None}
    call = Call("GET", "/v1/jobs", _views, {"params": params | {"limit": str(min(limit, 100))}})
    return Pages(call, "cursor", "cursor")


def results(job_id: str) -> Pages[dict[str, Any]]:
    """Where a dataset lies, once for each page of its files."""
    call = Call("GET", path_of(job_id, "results"), _whole, {"params": {"limit": 5_000}})
    return Pages(call, "after", "after")


def joined(pages: list[dict[str, Any]]) -> dict[str, Any]:
    """The pages of `results` as one."""
    return pages[-1] | {"files": [file for page in pages for file in page["files"]]}


def items(job_id: str, first: int) -> Pages[dict[str, Any]]:
    """A job's images one by one."""
    found = _pages(path_of(job_id, "items"), "items", 1_000, "first", "next")
    params = found.call.more["params"] | {"first": first}
    return replace(found, call=replace(found.call, more={"params": params}))


def failed(job_id: str) -> Pages[dict[str, Any]]:
    """A job's images without a picture."""
    return _pages(path_of(job_id, "failed"), "failed", 500, "cursor", "cursor")


def picture(job_id: str, image: int) -> Call[dict[str, Any]]:
    """One picture's file, whose bytes are read as they are."""
    return house(path_of(job_id, f"items/{image}/picture"))


def original(job_id: str, key: str) -> Call[Original]:
    """A picture's whole row and its job."""
    return Call("GET", path_of(job_id, f"rows/{quote(key, safe='')}"), _original)


def stages(job_id: str) -> Call[dict[str, Any]]:
    """Where the time of a job's latest shards went."""
    return house(path_of(job_id, "stages"))


def coverage(job_id: str) -> Call[dict[str, Any]]:
    """A job's pictures by value."""
    return house(path_of(job_id, "coverage"))


def shards(job_id: str, first: int) -> Pages[dict[str, Any]]:
    """A job's committed shards."""
    found = _pages(path_of(job_id, "shards"), "shards", 200, "first", "next")
    params = found.call.more["params"] | {"first": first}
    return replace(found, call=replace(found.call, more={"params": params}))


def contact_sheet(job_id: str, shard: int) -> Call[dict[str, Any]]:
    """A shard's contact sheet, whose bytes are read as they are."""
    return replace(house(path_of(job_id, "contact-sheet")), more={"params": {"shard": shard}})


def add_webhook(url: str, events: Sequence[str]) -> Call[dict[str, Any]]:
    """Add a webhook."""
    body = {"url": url} | ({"events": list(events)} if events else {})
    return Call("POST", "/v1/webhooks", dict, {"json": body}, twice=False)


def webhooks() -> Call[list[dict[str, Any]]]:
    """List webhooks."""
    return Call("GET", "/v1/webhooks", lambda reply: list(reply["webhooks"]))


def delete_webhook(webhook_id: str) -> Call[dict[str, Any]]:
    """Delete a webhook."""
    return Call("DELETE", f"/v1/webhooks/{quote(webhook_id, safe='')}", dict)


def deliveries(state: str | None, limit: int) -> Call[list[dict[str, Any]]]:
    """List messages to webhooks."""
    params = {"limit": str(limit)} | ({"state": state} if state else {})
    path = "/v1/webhooks/deliveries"
    return Call("GET", path, lambda reply: list(reply["deliveries"]), {"params": params})


def view_of(fields: dict[str, Any]) -> JobView:
    """The view in a reply."""
    # Through JSON text, because strict values take lists for tuples only from there.
    return JobView.model_validate_json(json.dumps(fields))


def _pages(path: str, name: str, limit: int, asks: str, tells: str) -> Pages[dict[str, Any]]:
    def read(reply: dict[str, Any]) -> list[dict[str, Any]]:
        return list(reply[name])

    return Pages(Call("GET", path, read, {"params": {"limit": limit}}), asks, tells)


def _whole(reply: dict[str, Any]) -> list[dict[str, Any]]:
    return [reply]


def _views(reply: dict[str, Any]) -> list[JobView]:
    return [view_of(fields) for fields in reply["jobs"]]


def _submission(reply: dict[str, Any]) -> Submission:
    fields = {name: reply[name] for name in Submission.model_fields if name in reply}
    return Submission.model_validate(fields)


def _original(reply: dict[str, Any]) -> Original:
    # Through JSON text, because strict values take lists for tuples only from there.
    return Original.model_validate_json(json.dumps(reply))


def _dry_run(reply: dict[str, Any]) -> DryRun:
    fields = {name: reply[name] for name in DryRun.model_fields if name in reply}
    # Through JSON text, because strict values take lists for tuples only from there.
    return DryRun.model_validate_json(json.dumps(fields))


def _key(key: str | None) -> str:
    return key if key is not None else uuid.uuid4().hex
