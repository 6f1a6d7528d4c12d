"""The client: every verb of the API as a typed call, safe to repeat when a reply is lost."""

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from jobs.client_follow import events_after, view_of, views_of
from jobs.client_upload import open_upload
from jobs.client_wire import Wire
from jobs.job import JobRequest, JobView, Submission

#: A retry is listed before it is accepted: minutes for millions of failed images.
RETRY_TIMEOUT_S = 600.0


def _submission(reply: dict[str, Any]) -> Submission:
    fields = {name: reply[name] for name in Submission.model_fields if name in reply}
    return Submission.model_validate(fields)


class Client:
    """Talks to one fewstep API; use it as a context manager, or call `close`.

    `key` is an API key, where the API asks for one.

    All calls raise the errors of `jobs.errors`, as the server means them: InvalidInput,
    NotFound, Conflict, NoCapacity and so on; Unreachable when nothing answers at `url`.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._wire = Wire(url, key, timeout_s, transport)
        self.url = self._wire.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    # ---- submitting ----

    def submit(
        self,
        request: JobRequest,
        prompts: Path | Sequence[str | dict[str, Any]],
        *,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Submit a job: a prompt file (.txt, .jsonl; streamed) or prompts given here.

        The same key with the same prompts and request is the same job, however often it is
        sent; without a key one is drawn, so that lost replies never make a second job.
        """
        return self._send(request, prompts, idempotency_key, dry_run=False)

    def dry_run(
        self, request: JobRequest, prompts: Path | Sequence[str | dict[str, Any]]
    ) -> Submission:
        """Check and count as `submit` does, and write nothing."""
        return self._send(request, prompts, None, dry_run=True)

    def _send(
        self,
        request: JobRequest,
        prompts: Path | Sequence[str | dict[str, Any]],
        idempotency_key: str | None,
        *,
        dry_run: bool,
    ) -> Submission:
        key = idempotency_key if idempotency_key is not None else uuid.uuid4().hex
        with open_upload(request, prompts) as upload:
            reply = self._wire.call(
                "POST",
                "/v1/jobs",
                headers={"Idempotency-Key": key},
                params={"dry_run": "true"} if dry_run else {},
                upload=upload,
            )
        return _submission(reply)

    # ---- one job ----

    def job(self, job_id: str) -> JobView:
        """The job as it is now."""
        return view_of(self._wire.call("GET", f"/v1/jobs/{job_id}"))

    def cancel(self, job_id: str, *, delete: bool = False) -> JobView:
        """Stop a job for good; what was committed stays, or is deleted."""
        params = {"shards": "delete"} if delete else {}
        return view_of(self._wire.call("POST", f"/v1/jobs/{job_id}/cancel", params=params))

    def pause(self, job_id: str) -> JobView:
        """Start no new shard of the job until it is resumed."""
        return view_of(self._wire.call("POST", f"/v1/jobs/{job_id}/pause"))

    def resume(self, job_id: str) -> JobView:
        """Let a paused job go on."""
        return view_of(self._wire.call("POST", f"/v1/jobs/{job_id}/resume"))

    def set_priority(self, job_id: str, priority: int) -> JobView:
        """Serve the job with this priority (0 to 9) from now on."""
        body = {"priority": priority}
        return view_of(self._wire.call("PATCH", f"/v1/jobs/{job_id}", json=body))

    def retry_failed(
        self, job_id: str, *, unfinished: bool = False, idempotency_key: str | None = None
    ) -> Submission:
        """Render the images of an ended job that have no picture again; the retry's own id.

        `unfinished`: also those that a cancelled or stopped job never rendered. While a retry
        runs it is that one (`created` is false). Raises Conflict where nothing is to be retried.
        """
        key = idempotency_key if idempotency_key is not None else uuid.uuid4().hex
        reply = self._wire.call(
            "POST",
            f"/v1/jobs/{job_id}/retry-failed",
            headers={"Idempotency-Key": key},
            params={"unfinished": "true"} if unfinished else {},
            timeout=RETRY_TIMEOUT_S,
        )
        return _submission(reply)

    def results(self, job_id: str) -> dict[str, Any]:
        """Where the finished dataset lies: `prefix`, `uri`, and all `files` with their links.

        Raises Conflict while the job is unfinished.
        """
        path, files = f"/v1/jobs/{job_id}/results", []
        page: dict[str, Any] = {"next": 0}
        while page["next"] is not None:
            page = self._wire.call("GET", path, params={"first": page["next"], "limit": 5_000})
            files += page["files"]
        return page | {"files": files}

    def failed(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Every image without a picture so far: prompt, seed, error, traceback and so on.

        May be asked while the job runs, for what is known of it by then.
        """
        params: dict[str, str] = {"limit": "500"}
        while True:
            page = self._wire.call("GET", f"/v1/jobs/{job_id}/failed", params=params)
            yield from page["failed"]
            if page["cursor"] is None:
                return
            params["cursor"] = page["cursor"]

    def timing(self, job_id: str) -> dict[str, Any]:
        """The time of every stage (`timing.json`). Raises Conflict while the job is unfinished."""
        return self._wire.call("GET", f"/v1/jobs/{job_id}/timing")

    # ---- all jobs, and the house ----

    def jobs(self, *, state: str | None = None, limit: int = 100) -> list[JobView]:
        """Up to `limit` jobs, newest first; only those in `state` where it is given."""
        found: list[JobView] = []
        params: dict[str, str] = {"state": state} if state else {}
        while len(found) < limit:
            params["limit"] = str(min(limit - len(found), 100))
            page = self._wire.call("GET", "/v1/jobs", params=params)
            found += [view_of(job) for job in page["jobs"]]
            if page.get("cursor") is None:
                break
            params["cursor"] = page["cursor"]
        return found

    def models(self) -> dict[str, Any]:
        """Models by name, with the sizes they make."""
        return self._wire.call("GET", "/v1/models")

    def accelerators(self) -> dict[str, Any]:
        """Accelerators by name, with the steps and guidance they allow."""
        return self._wire.call("GET", "/v1/accelerators")

    def styles(self) -> dict[str, Any]:
        """Styles by name, with the models they fit."""
        return self._wire.call("GET", "/v1/styles")

    def cluster(self) -> dict[str, Any]:
        """Renderers by heartbeat, what waits for each engine, and the scheduler's age."""
        return self._wire.call("GET", "/v1/cluster")

    def health(self) -> dict[str, Any]:
        """Whether Redis and the store answer; raises Unreachable or BadConfiguration if not."""
        return self._wire.call("GET", "/readyz")

    # ---- following a job ----

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[dict[str, Any]]:
        """Events of a job as `{"id", "type", "data"}` until it has ended.

        The first is a `progress` with the whole view. Reconnects by itself where it was cut;
        `after` (an event's id) begins behind that one.
        """
        return events_after(self._wire, job_id, after)

    def watch(self, job_id: str) -> Iterator[JobView]:
        """The job's view whenever something changed; ends with the one in a final state.

        Falls back to asking every second where events do not come through, and bears an API
        that is away for a minute.
        """
        return views_of(self._wire, job_id)
