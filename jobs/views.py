"""A job as its user sees it: from the queue while it knows the job, else from the store."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import lru_cache

from jobs.budget import Budget, moment
from jobs.control import read_budget
from jobs.errors import DamagedJob, NotFound, Unreachable
from jobs.job import Job, JobView
from jobs.layout import JobLayout, layout_of
from jobs.queue_values import QueueJob
from jobs.results import outcome_of, read_timing, round_outcome
from jobs.rounds import read_extent, read_round
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job, round_number
from jobs.states import TERMINAL, JobState, state_of
from jobs.store import Store
from jobs.waiting import Scene, reason_of, scene_of

#: Accepted jobs kept in memory: they never change.
JOBS_KEPT = 2_000
#: Pages of the queue looked at for one page of a filtered list.
SCAN_PAGES = 20
#: States in which a job may wait for a renderer.
_OPEN = frozenset({JobState.WAITING, JobState.RUNNING})


class JobViews:
    """Reads jobs of one tenant; another tenant's job is NotFound, as one that never was."""

    def __init__(self, store: Store, queue: ShardQueue, *, prefix: str, tenant: str) -> None:
        self._store = store
        self._queue = queue
        self._prefix = prefix
        self._tenant = tenant
        self._read = lru_cache(JOBS_KEPT)(self._read_job)
        self._title = lru_cache(JOBS_KEPT)(self._round_title)
        self._counted = lru_cache(JOBS_KEPT)(self._images_in_all)

    def accepted(self, job_id: str) -> Job:
        """The job as it was accepted; raises NotFound."""
        return self._read(job_id)

    def whole(self, job_id: str) -> Job:
        """The job as if its extensions had been asked for with it; raises NotFound."""
        job = self.accepted(job_id)
        return read_extent(self._store, layout_of(job, self._prefix), job).whole

    def layout(self, job_id: str) -> JobLayout:
        """Where the job lies in the store; raises NotFound."""
        return layout_of(self.accepted(job_id), self._prefix)

    def view(self, job_id: str) -> JobView:
        """The job as it is now; raises NotFound."""
        job = self.accepted(job_id)
        record = self._queue.job(job_id)
        if record is None:
            number = round_number(job_id)
            return self._from_store(job) if not number else self._round_from_store(job, number)
        return self._from_queue([(job, record)])[0]

    def page(
        self,
        *,
        limit: int,
        cursor: str | None,
        wanted: Callable[[JobView], bool] = lambda _: True,
    ) -> tuple[list[JobView], str | None]:
        """Up to `limit` views, newest first, and the cursor of the next page (None: the last).

        Where not every job is wanted, a page may be short of `limit` although more follow.
        """
        found: list[JobView] = []
        for _ in range(SCAN_PAGES):
            page = self._queue.jobs(self._tenant, limit=limit - len(found), cursor=cursor)
            views = self._from_queue(self._with_files(page.jobs))
            found += filter(wanted, views)
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                break
        return found, cursor

    def _read_job(self, job_id: str) -> Job:
        try:
            return read_job(self._store, self._prefix, self._tenant, job_id)
        except NotFound as error:
            raise NotFound(
                "there is no such job", where=job_id, remedy="`fewstep jobs` lists them"
            ) from error

    def _with_files(self, records: Sequence[QueueJob]) -> list[tuple[Job, QueueJob]]:
        found = []
        for record in records:
            # A job whose folder somebody deleted or damaged must not hide the others.
            with suppress(NotFound, DamagedJob):
                found.append((self.accepted(record.job_id), record))
        return found

    def _from_queue(self, pairs: Sequence[tuple[Job, QueueJob]]) -> list[JobView]:
        states = [_state(record) for _, record in pairs]
        waits = any(
            state in _OPEN and not record.units_in_flight
            for (_, record), state in zip(pairs, states, strict=True)
        )
        scene = scene_of(self._queue, self._tenant) if waits else Scene()
        return [
            self._view(job, record, state, reason_of(record, state, scene))
            for (job, record), state in zip(pairs, states, strict=True)
        ]

    def _view(self, job: Job, record: QueueJob, state: JobState, reason: str) -> JobView:
        failed = record.failed_images + record.dead_images
        rate = _rate(record)
        left = record.images - record.done_images - failed
        return JobView(
            id=record.job_id,
            tenant=job.tenant,
            name=self._name(job, round_number(record.job_id)),
            state=state,
            reason=reason,
            images=self._images(job, record),
            budget=_budget(job, record),
            device_seconds=record.spent_ms / 1000,
            done=record.done_images,
            failed=failed,
            shards=record.shards,
            shards_running=record.units_in_flight,
            priority=record.priority,
            max_failed_rows=record.max_failed,
            submitted_ms=record.submitted_ms if round_number(record.job_id) else job.submitted_ms,
            started_ms=record.first_claim_ms,
            finished_ms=record.finished_ms,
            retry=f"{job.id}-r{record.round}" if record.round else "",
            images_per_second=rate,
            eta_s=left / rate if rate and state == JobState.RUNNING else None,
            prefix=layout_of(job, self._prefix).root,
            warnings=job.warnings,
            recipe=job.recipe.model_dump(mode="json"),
        )

    def _name(self, job: Job, number: int) -> str:
        if not number:
            return job.name
        title = f"round {number}"
        with suppress(NotFound, DamagedJob, Unreachable):
            title = self._title(job.id, number)
        return f"{job.name} ({title})".strip()

    def _round_title(self, job_id: str, number: int) -> str:
        """What a later round is to people; what was accepted does not change."""
        again = read_round(self._store, self.layout(job_id), number)
        titles = {"retry-failed": "retry", "extend": "extension"}
        return f"{titles.get(again.kind, again.kind)} {number}"

    def _images(self, job: Job, record: QueueJob) -> int:
        """How many images the job has; extensions count once they have ended."""
        if not record.round:
            return record.images
        told = (record.round, record.outcome, record.done_images, record.failed_images)
        return self._with_added(job, told, record.images)

    def _with_added(self, job: Job, as_of: Hashable, images: int) -> int:
        """`images`, or what there is with extensions; `as_of` changes where that may have."""
        # Of one that ended before anything was made there is no timing.
        with suppress(NotFound, DamagedJob, Unreachable):
            counted = self._counted(job.id, as_of)
            return counted if counted > job.images else images
        return images

    def _images_in_all(self, job_id: str, _as_of: Hashable) -> int:
        return read_timing(self._store, self.layout(job_id)).images

    def _from_store(self, job: Job) -> JobView:
        """The view of a job that the queue does not know: ended long ago, or not queued yet."""
        layout = layout_of(job, self._prefix)
        ended, budget = outcome_of(self._store, layout), read_budget(self._store, layout, job)
        images = budget.images_of(job.images)
        if ended.state in TERMINAL:
            images = self._with_added(job, ended, images)
        return JobView(
            id=job.id,
            tenant=job.tenant,
            name=job.name,
            state=ended.state,
            reason=ended.reason,
            images=images,
            budget=budget,
            device_seconds=None if ended.device_ms is None else ended.device_ms / 1000,
            done=ended.done,
            failed=ended.failed,
            shards=-(-images // job.shard_images),
            shards_running=0,
            priority=job.priority,
            max_failed_rows=job.max_failed_rows,
            submitted_ms=job.submitted_ms,
            started_ms=ended.started_ms,
            finished_ms=ended.finished_ms,
            images_per_second=ended.images_per_second,
            prefix=layout.root,
            warnings=job.warnings,
            recipe=job.recipe.model_dump(mode="json"),
        )

    def _round_from_store(self, job: Job, number: int) -> JobView:
        layout = layout_of(job, self._prefix)
        try:
            again = read_round(self._store, layout, number)
        except NotFound as error:
            raise NotFound("there is no such retry", where=f"{job.id}-r{number}") from error
        ended = round_outcome(self._store, layout, number)
        news = {
            "id": again.id,
            "name": self._name(job, number),
            "state": ended.state,
            "reason": ended.reason,
            "images": again.images or again.dropped,
            "budget": Budget(),
            "done": ended.done,
            "failed": ended.failed,
            "shards": again.shards,
            "submitted_ms": again.created_ms,
            "started_ms": ended.started_ms,
            "finished_ms": ended.finished_ms,
            "images_per_second": None,
        }
        return self._from_store(job).model_copy(update=news)


def _state(record: QueueJob) -> JobState:
    return state_of(
        record.state,
        record.outcome,
        started=record.first_claim_ms is not None,
        in_flight=record.units_in_flight,
        accounted=record.accounted,
    )


def _budget(job: Job, record: QueueJob) -> Budget:
    if round_number(record.job_id):
        return Budget()
    device, deadline = record.limits.device_ms, record.limits.deadline_ms
    return Budget(
        max_images=record.images if record.images < job.images else None,
        max_device_seconds=None if device is None else device / 1000,
        deadline=None if deadline is None else moment(deadline),
    )


def _rate(record: QueueJob) -> float | None:
    """Images a second since the first claim, as of the last progress; None before any."""
    settled = record.done_images + record.failed_images + record.dead_images
    if not settled or record.first_claim_ms is None or record.last_progress_ms is None:
        return None
    return settled * 1000 / max(1, record.last_progress_ms - record.first_claim_ms)
