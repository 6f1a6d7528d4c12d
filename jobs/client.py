"""The client: every verb of the API as a typed call, safe to repeat when a reply is lost."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from jobs import client_calls as calls
from jobs.client_download import Copying, Progress
from jobs.client_follow import AWAY, POLL_S, Resume, Watch
from jobs.client_repair import Repairs
from jobs.client_upload import Prompts, open_upload
from jobs.client_wire import Wire, bytes_of, scattered, trusts_environment
from jobs.job import DryRun, JobRequest, JobView, Submission


class Client(Repairs):
    """Talks to one fewstep API; use it as a context manager, or call `close`.

    `key` is an API key, where the API asks for one. `AsyncClient` has the same verbs.

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
        self, request: JobRequest, prompts: Prompts, *, idempotency_key: str | None = None
    ) -> Submission:
        """Submit a job: a prompt file or folder, prompts given here, or a template.

        The same key with the same prompts and request is the same job, however often it is
        sent; without a key one is drawn, so that lost replies never make a second job.
        """
        with open_upload(request, prompts) as upload:
            return self._wire.run(calls.submit(upload, idempotency_key))

    def dry_run(self, request: JobRequest, prompts: Prompts, *, first: int = 0) -> DryRun:
        """Check and count as `submit` does, write nothing, and say what it would cost.

        `preview` has ten of its rows, from row `first` on.
        """
        with open_upload(request, prompts) as upload:
            return self._wire.run(calls.dry_run(upload, first))

    # ---- one job ----

    def job(self, job_id: str) -> JobView:
        """The job as it is now."""
        return self._wire.run(calls.job(job_id))

    def cancel(self, job_id: str, *, delete: bool = False) -> JobView:
        """Stop a job for good; what was committed stays, or is deleted."""
        return self._wire.run(calls.cancel(job_id, delete=delete))

    def pause(self, job_id: str) -> JobView:
        """Start no new shard of the job until it is resumed."""
        return self._wire.run(calls.steer(job_id, "pause"))

    def resume(self, job_id: str) -> JobView:
        """Let a paused job go on."""
        return self._wire.run(calls.steer(job_id, "resume"))

    def set_priority(self, job_id: str, priority: int) -> JobView:
        """Serve the job with this priority (0 to 9) from now on."""
        return self._wire.run(calls.set_priority(job_id, priority))

    def set_budget(self, job_id: str, **limits: Any) -> JobView:
        """Give a job other limits: `max_images`, `max_device_seconds`, `deadline`; None: none.

        One that stopped at a limit goes on where that is raised.
        """
        return self._wire.run(calls.set_budget(job_id, limits))

    def items(self, job_id: str, *, first: int = 0) -> Iterator[dict[str, Any]]:
        """Every image of a job from `first` on: row, seed, status, error, link; page by page."""
        return self._wire.pages(calls.items(job_id, first))

    def failed(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Every image without a picture so far: prompt, seed, error, traceback and so on.

        May be asked while the job runs, for what is known of it by then.
        """
        return self._wire.pages(calls.failed(job_id))

    def picture(self, job_id: str, image: int) -> bytes:
        """The file of one picture, as soon as its shard is committed; raises NotFound."""
        return bytes_of(self._wire.send(calls.picture(job_id, image)))

    def results(self, job_id: str) -> dict[str, Any]:
        """Where the finished dataset lies: `prefix`, `uri`, and all `files` with their links.

        Raises Conflict while the job is unfinished.
        """
        return calls.joined(list(self._wire.pages(calls.results(job_id))))

    def download(
        self, job_id: str, out: Path, progress: Progress = lambda there, total: None
    ) -> int:
        """Copy a finished dataset to the root of `out`; how many files were copied anew.

        Called again, it goes on where it was cut. Every file of a shard is compared with its
        digest. Raises Conflict while the job is unfinished.
        """
        copying = Copying(out, progress, trust_env=trusts_environment(self.url))
        while not copying.take(self.results(job_id)["files"]):
            pass
        return copying.copied

    def timing(self, job_id: str) -> dict[str, Any]:
        """The time of every stage (`timing.json`). Raises Conflict while the job is unfinished."""
        return self._wire.run(calls.timing(job_id))

    def stages(self, job_id: str) -> dict[str, Any]:
        """Where the time of the job's latest shards went, stage by stage; also while it runs."""
        return self._wire.run(calls.stages(job_id))

    def coverage(self, job_id: str) -> dict[str, Any]:
        """Pictures of each value of the prompts' own columns, and what was not taken, so far."""
        return self._wire.run(calls.coverage(job_id))

    def shards(self, job_id: str, *, first: int = 0) -> Iterator[dict[str, Any]]:
        """Every committed shard from number `first` on: its tars, pictures, errors, makers."""
        return self._wire.pages(calls.shards(job_id, first))

    def contact_sheet(self, job_id: str, shard: int) -> bytes:
        """A JPEG of up to 64 pictures of a shard, as soon as it is committed; raises NotFound."""
        return bytes_of(self._wire.send(calls.contact_sheet(job_id, shard)))

    # ---- all jobs, and the house ----

    def jobs(
        self,
        *,
        state: str | None = None,
        model: str | None = None,
        name: str | None = None,
        limit: int = 100,
    ) -> list[JobView]:
        """Up to `limit` jobs, newest first; only those that fit what is given."""
        pages = calls.jobs(limit, state=state, model=model, name=name)
        return list(islice(self._wire.pages(pages), limit))

    def models(self) -> dict[str, Any]:
        """Models by name, with the sizes they make."""
        return self._wire.run(calls.house("/v1/models"))

    def accelerators(self) -> dict[str, Any]:
        """Accelerators by name, with the steps and guidance they allow."""
        return self._wire.run(calls.house("/v1/accelerators"))

    def styles(self) -> dict[str, Any]:
        """Styles by name, with the models they fit."""
        return self._wire.run(calls.house("/v1/styles"))

    def filters(self) -> dict[str, Any]:
        """Filters by name, with what their scores mean and their default limits."""
        return self._wire.run(calls.house("/v1/filters"))

    def cluster(self) -> dict[str, Any]:
        """Renderers by heartbeat, what waits for each engine, and the scheduler's age."""
        return self._wire.run(calls.house("/v1/cluster"))

    def health(self) -> dict[str, Any]:
        """Whether Redis and the store answer; raises Unreachable or BadConfiguration if not."""
        return self._wire.run(calls.house("/readyz"))

    # ---- webhooks ----

    def add_webhook(self, url: str, events: Sequence[str] = ()) -> dict[str, Any]:
        """Have `url` told of these events (none: the usual ones); its `secret` is told once.

        Not sent again where the reply is lost: `webhooks` shows whether it is there.
        """
        return self._wire.run(calls.add_webhook(url, events))

    def webhooks(self) -> list[dict[str, Any]]:
        """Your webhooks, oldest first, without their secrets."""
        return self._wire.run(calls.webhooks())

    def delete_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Send nothing more there."""
        return self._wire.run(calls.delete_webhook(webhook_id))

    def deliveries(self, *, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Messages of the last seven days, newest first, and what became of each."""
        return self._wire.run(calls.deliveries(state, limit))

    # ---- following a job ----

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[dict[str, Any]]:
        """Events of a job as `{"id", "type", "data"}` until it has ended.

        The first is a `progress` with the whole view. Reconnects by itself where it was cut;
        `after` (an event's id) begins behind that one.
        """
        resume = Resume(self.url, job_id, after)
        while True:
            cut: httpx.TransportError | None = None
            try:
                for event in self._wire.stream(resume.path, resume.headers()):
                    if not resume.take(event):
                        return
                    yield event
            except httpx.TransportError as error:
                cut = error
            time.sleep(resume.wait_after(cut))

    def watch(self, job_id: str) -> Iterator[JobView]:
        """The job's view whenever something changed; ends with the one in a final state.

        Falls back to asking every second where events do not come through, and bears an API
        that is away for a minute.
        """
        watch = Watch()
        while not watch.ended:
            try:
                for view in self._views(job_id):
                    if watch.is_news(view):
                        yield view
            except AWAY as error:
                watch.bear(error)
            if not watch.ended:
                time.sleep(scattered(POLL_S))

    def _views(self, job_id: str) -> Iterator[JobView]:
        """Views from one run of events, and the one that is asked for where they end."""
        try:
            for event in self.events(job_id):
                if event["type"] == "progress":
                    yield calls.view_of(event["data"])
        except AWAY:
            pass
        yield self.job(job_id)
