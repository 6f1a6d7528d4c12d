"""The client for asyncio: the same verbs as `Client`, over the same calls."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from jobs import client_calls as calls
from jobs.client_async_wire import AsyncWire
from jobs.client_download import Progress, download_files
from jobs.client_upload import Prompts, open_upload
from jobs.client_wire import trusts_environment
from jobs.job import DryRun, JobRequest, JobView, Submission
from jobs.states import TERMINAL


class AsyncClient:
    """Talks to one fewstep API; see `Client`, whose verbs and errors these are."""

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._wire = AsyncWire(url, key, timeout_s, transport)
        self.url = self._wire.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def submit(
        self, request: JobRequest, prompts: Prompts, *, idempotency_key: str | None = None
    ) -> Submission:
        """Submit a job; see `Client.submit`."""
        with open_upload(request, prompts) as upload:
            return await self._wire.run(calls.submit(upload, idempotency_key))

    async def dry_run(self, request: JobRequest, prompts: Prompts, *, first: int = 0) -> DryRun:
        """Check and count as `submit` does, write nothing, and say what it would cost.

        `preview` has ten of its rows, from row `first` on.
        """
        with open_upload(request, prompts) as upload:
            return await self._wire.run(calls.dry_run(upload, first))

    async def job(self, job_id: str) -> JobView:
        """The job as it is now."""
        return await self._wire.run(calls.job(job_id))

    async def cancel(self, job_id: str, *, delete: bool = False) -> JobView:
        """Stop a job for good; what was committed stays, or is deleted."""
        return await self._wire.run(calls.cancel(job_id, delete=delete))

    async def pause(self, job_id: str) -> JobView:
        """Start no new shard of the job until it is resumed."""
        return await self._wire.run(calls.steer(job_id, "pause"))

    async def resume(self, job_id: str) -> JobView:
        """Let a paused job go on."""
        return await self._wire.run(calls.steer(job_id, "resume"))

    async def set_priority(self, job_id: str, priority: int) -> JobView:
        """Serve the job with this priority (0 to 9) from now on."""
        return await self._wire.run(calls.set_priority(job_id, priority))

    async def retry_failed(
        self, job_id: str, *, unfinished: bool = False, idempotency_key: str | None = None
    ) -> Submission:
        """Render the images of an ended job that have no picture again; the retry's own id."""
        call = calls.retry_failed(job_id, unfinished=unfinished, key=idempotency_key)
        return await self._wire.run(call)

    def items(self, job_id: str, *, first: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Every image of a job from `first` on; page by page."""
        return self._wire.pages(calls.items(job_id, first))

    def failed(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """Every image without a picture so far."""
        return self._wire.pages(calls.failed(job_id))

    async def picture(self, job_id: str, image: int) -> bytes:
        """The file of one picture, as soon as its shard is committed; raises NotFound."""
        return await self._wire.read_bytes(calls.picture_path(job_id, image))

    async def results(self, job_id: str) -> dict[str, Any]:
        """Where the finished dataset lies; raises Conflict while the job is unfinished."""
        return calls.joined([page async for page in self._wire.pages(calls.results(job_id))])

    async def download(
        self, job_id: str, out: Path, progress: Progress = lambda there, total: None
    ) -> int:
        """Copy a finished dataset to the root of `out`; see `Client.download`.

        `progress` is called from another thread.
        """
        files = (await self.results(job_id))["files"]
        trusts = trusts_environment(self.url)
        return await asyncio.to_thread(download_files, files, out, progress, trusts)

    async def timing(self, job_id: str) -> dict[str, Any]:
        """The time of every stage; raises Conflict while the job is unfinished."""
        return await self._wire.run(calls.timing(job_id))

    async def jobs(
        self,
        *,
        state: str | None = None,
        model: str | None = None,
        name: str | None = None,
        limit: int = 100,
    ) -> list[JobView]:
        """Up to `limit` jobs, newest first; only those that fit what is given."""
        found: list[JobView] = []
        async for view in self._wire.pages(calls.jobs(limit, state=state, model=model, name=name)):
            found.append(view)
            if len(found) == limit:
                break
        return found

    async def models(self) -> dict[str, Any]:
        """Models by name."""
        return await self._wire.run(calls.house("/v1/models"))

    async def accelerators(self) -> dict[str, Any]:
        """Accelerators by name."""
        return await self._wire.run(calls.house("/v1/accelerators"))

    async def styles(self) -> dict[str, Any]:
        """Styles by name."""
        return await self._wire.run(calls.house("/v1/styles"))

    async def cluster(self) -> dict[str, Any]:
        """Renderers by heartbeat, what waits for each engine, and the scheduler's age."""
        return await self._wire.run(calls.house("/v1/cluster"))

    async def health(self) -> dict[str, Any]:
        """Whether Redis and the store answer."""
        return await self._wire.run(calls.house("/readyz"))

    def events(self, job_id: str, *, after: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Events of a job until it has ended; see `Client.events`."""
        return self._wire.events(job_id, after)

    async def watch(self, job_id: str) -> AsyncIterator[JobView]:
        """The job's view whenever something changed; ends with the one in a final state.

        Raises Unreachable where the API is away for longer than a call is repeated.
        """
        shown: JobView | None = None
        async for event in self.events(job_id):
            if event["type"] == "progress":
                view = calls.view_of(event["data"])
                if view != shown:
                    shown = view
                    yield view
        if shown is None or shown.state not in TERMINAL:
            yield await self.job(job_id)
