"""The client for asyncio: the same verbs as `Client`, over the same calls."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from jobs import client_calls as calls
from jobs.client_async_wire import AsyncWire
from jobs.client_download import Copying, Progress
from jobs.client_follow import AWAY, POLL_S, Resume, Watch
from jobs.client_repair import AsyncRepairs
from jobs.client_upload import Prompts, open_upload
from jobs.client_wire import bytes_of, scattered, trusts_environment
from jobs.job import DryRun, JobRequest, JobView, Submission


class AsyncClient(AsyncRepairs):
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

    async def set_budget(self, job_id: str, **limits: Any) -> JobView:
        """Give a job other limits; see `Client.set_budget`."""
        return await self._wire.run(calls.set_budget(job_id, limits))

    def items(self, job_id: str, *, first: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Every image of a job from `first` on; page by page."""
        return self._wire.pages(calls.items(job_id, first))

    def failed(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """Every image without a picture so far."""
        return self._wire.pages(calls.failed(job_id))

    async def picture(self, job_id: str, image: int) -> bytes:
        """The file of one picture, as soon as its shard is committed; raises NotFound."""
        return bytes_of(await self._wire.send(calls.picture(job_id, image)))

    async def results(self, job_id: str) -> dict[str, Any]:
        """Where the finished dataset lies; raises Conflict while the job is unfinished."""
        return calls.joined([page async for page in self._wire.pages(calls.results(job_id))])

    async def download(
        self, job_id: str, out: Path, progress: Progress = lambda there, total: None
    ) -> int:
        """Copy a finished dataset to the root of `out`; see `Client.download`.

        `progress` is called from another thread.
        """
        copying = Copying(out, progress, trust_env=trusts_environment(self.url))
        while not await asyncio.to_thread(copying.take, (await self.results(job_id))["files"]):
            pass
        return copying.copied

    async def timing(self, job_id: str) -> dict[str, Any]:
        """The time of every stage; raises Conflict while the job is unfinished."""
        return await self._wire.run(calls.timing(job_id))

    async def stages(self, job_id: str) -> dict[str, Any]:
        """Where the time of the job's latest shards went, stage by stage; also while it runs."""
        return await self._wire.run(calls.stages(job_id))

    async def coverage(self, job_id: str) -> dict[str, Any]:
        """Pictures of each value of the prompts' own columns, and what was not taken, so far."""
        return await self._wire.run(calls.coverage(job_id))

    def shards(self, job_id: str, *, first: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Every committed shard from number `first` on."""
        return self._wire.pages(calls.shards(job_id, first))

    async def contact_sheet(self, job_id: str, shard: int) -> bytes:
        """A JPEG of up to 64 pictures of a shard, as soon as it is committed; raises NotFound."""
        return bytes_of(await self._wire.send(calls.contact_sheet(job_id, shard)))

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

    async def filters(self) -> dict[str, Any]:
        """Filters by name, with what their scores mean and their default limits."""
        return await self._wire.run(calls.house("/v1/filters"))

    async def cluster(self) -> dict[str, Any]:
        """Renderers by heartbeat, what waits for each engine, and the scheduler's age."""
        return await self._wire.run(calls.house("/v1/cluster"))

    async def health(self) -> dict[str, Any]:
        """Whether Redis and the store answer."""
        return await self._wire.run(calls.house("/readyz"))

    async def add_webhook(self, url: str, events: Sequence[str] = ()) -> dict[str, Any]:
        """Have `url` told of these events; see `Client.add_webhook`."""
        return await self._wire.run(calls.add_webhook(url, events))

    async def webhooks(self) -> list[dict[str, Any]]:
        """Your webhooks, oldest first, without their secrets."""
        return await self._wire.run(calls.webhooks())

    async def delete_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Send nothing more there."""
        return await self._wire.run(calls.delete_webhook(webhook_id))

    async def deliveries(
        self, *, state: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Messages of the last seven days, newest first, and what became of each."""
        return await self._wire.run(calls.deliveries(state, limit))

    async def events(
        self, job_id: str, *, after: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Events of a job until it has ended; see `Client.events`."""
        resume = Resume(self.url, job_id, after)
        while True:
            cut: httpx.TransportError | None = None
            try:
                async for event in self._wire.stream(resume.path, resume.headers()):
                    if not resume.take(event):
                        return
                    yield event
            except httpx.TransportError as error:
                cut = error
            await asyncio.sleep(resume.wait_after(cut))

    async def watch(self, job_id: str) -> AsyncIterator[JobView]:
        """The job's view whenever something changed; see `Client.watch`."""
        watch = Watch()
        while not watch.ended:
            try:
                async for view in self._views(job_id):
                    if watch.is_news(view):
                        yield view
            except AWAY as error:
                watch.bear(error)
            if not watch.ended:
                await asyncio.sleep(scattered(POLL_S))

    async def _views(self, job_id: str) -> AsyncIterator[JobView]:
        try:
            async for event in self.events(job_id):
                if event["type"] == "progress":
                    yield calls.view_of(event["data"])
        except AWAY:
            pass
        yield await self.job(job_id)
