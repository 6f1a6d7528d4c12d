"""What the doctor finds in queue and store: scheduler, renderers, leases, jobs and reasons."""

import time
from collections.abc import Iterator, Sequence

from fewstep.doctor_leftovers import leftovers_found
from fewstep.findings import Finding
from jobs.layout import JobLayout
from jobs.queue_values import LeaseRecord, QueueJob, RendererRecord
from jobs.redis_client import heartbeat_client
from jobs.s3_client import BRIEF
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.specs import dataset_id
from jobs.states import JobState, state_of
from jobs.store import Store
from jobs.waiting import (
    CANNOT_START,
    NO_ROOM,
    NO_SCHEDULER,
    SCALING_UP,
    STORE_AWAY,
    reason_of,
    scene_of,
)

#: Jobs told one by one; of the others, how many there are.
TOLD = 20
#: A scheduler that was silent for longer is away.
SILENT_MS = 15_000
#: A lease this far beyond its end is offered to nobody: nobody claims for its engine.
OVERDUE_MS = 5_000
#: Without an image for this long, a job that is being rendered is looked at.
STILL_MS = 600_000
_REMEDIES = {
    "paused": "fewstep resume ID",
    NO_SCHEDULER: "run `fewstep up`, or python -m scheduler",
    SCALING_UP: "the scheduler starts one: see renderers, and its log",
    NO_ROOM: "it waits its turn; more devices, or a higher FEWSTEP_MAX_RENDERERS, end that",
    STORE_AWAY: "see the line about the store",
}


def queue_found(settings: Settings) -> Iterator[Finding]:
    """Raises Unreachable or BadConfiguration where one of the two servers cannot be asked."""
    with heartbeat_client(settings.redis_url.get_secret_value()) as client:
        queue = ShardQueue(client)
        renderers, jobs, leases = queue.renderers(), queue.open_jobs(), queue.leases()
        ended = queue.jobs(limit=100).jobs
        age = queue.scheduler_age_ms()
        yield _scheduler(age)
        yield from _renderers(renderers, settings)
        yield from _leases(leases, renderers)
        yield from _open(queue, jobs)
        yield from _failed(ended)
        store = Store.connect(settings, patience=BRIEF)
        try:
            yield from _gone(store, settings.s3_prefix, jobs)
            yield from leftovers_found(store, queue, settings.s3_prefix)
        finally:
            store.close()


def _scheduler(age: int | None) -> Finding:
    if age is None or age > SILENT_MS:
        seen = "never seen" if age is None else f"last seen {age / 1000:.0f} s ago"
        return Finding("scheduler", "fail", seen, "run `fewstep up`, or python -m scheduler")
    return Finding("scheduler", "ok", f"seen {age / 1000:.1f} s ago")


def _renderers(renderers: Sequence[RendererRecord], settings: Settings) -> Iterator[Finding]:
    if not renderers:
        yield Finding("renderers", "ok", "none just now; they are started when a job waits")
    silent_ms = 3 * settings.renew_ms
    for one in renderers:
        state, name = one.info.get("state", "?"), f"renderer {one.worker}"
        silence = _now_ms() - one.beat_ms
        if state == "broken":
            remedy = "mend it: the next renderer tries again within a minute"
            yield Finding(name, "fail", one.info.get("error", "its engine does not load"), remedy)
        elif silence > silent_ms:
            text = f"no heartbeat for {silence / 1000:.0f} s: it died, hangs, or cannot reach Redis"
            remedy = "its leases run out by themselves; see its log in Ray's session folder"
            yield Finding(name, "warn", text, remedy)
        else:
            yield Finding(name, "ok", f"{state} on {one.info.get('node', '?')}")


def _leases(
    leases: Sequence[LeaseRecord], renderers: Sequence[RendererRecord]
) -> Iterator[Finding]:
    living = {one.worker for one in renderers}
    overdue = [one for one in leases if one.deadline_ms < _now_ms() - OVERDUE_MS]
    orphaned = [one for one in leases if one.worker not in living and one not in overdue]
    if overdue:
        text = f"{len(overdue)} have run out, and nobody claims them: {_units(overdue)}"
        yield Finding("leases", "warn", text, "a renderer of that engine is missing: see renderers")
    if orphaned:
        longest = max(one.deadline_ms for one in orphaned) - _now_ms()
        text = f"{len(orphaned)} are held by renderers that are gone: {_units(orphaned)}"
        yield Finding("leases", "warn", text, f"offered again in {max(0, longest) / 1000:.0f} s")
    if not overdue and not orphaned:
        yield Finding("leases", "ok", f"{len(leases)} in flight")


def _open(queue: ShardQueue, jobs: Sequence[QueueJob]) -> Iterator[Finding]:
    for job in jobs[:TOLD]:
        state = _state(job)
        reason = reason_of(job, state, scene_of(queue, job.tenant))
        still = _now_ms() - (job.last_progress_ms or job.first_claim_ms or _now_ms())
        if reason.startswith(CANNOT_START):
            yield Finding(f"job {job.job_id}", "fail", f"{state}: {reason}", "see its renderer")
        elif job.units_in_flight and still > STILL_MS:
            text = f"{state}: no image for {still / 60_000:.0f} min"
            yield Finding(f"job {job.job_id}", "warn", text, "see its renderers, and their logs")
        else:
            remedy = _REMEDIES.get(reason.partition(":")[0], "").replace("ID", job.job_id)
            text = f"{state}: {reason}" if reason else str(state)
            waits = remedy and state != JobState.PAUSED
            yield Finding(f"job {job.job_id}", "warn" if waits else "ok", text, remedy)
    if len(jobs) > TOLD:
        yield Finding("jobs", "ok", f"{len(jobs) - TOLD} more are open")


def _failed(jobs: Sequence[QueueJob]) -> Iterator[Finding]:
    failed = [job for job in jobs if job.outcome == "failed"]
    for job in failed[:TOLD]:
        text = f"failed: {job.reason or 'no reason was noted'}"
        remedy = f"fewstep failed {job.job_id} lists its images"
        yield Finding(f"job {job.job_id}", "warn", text, remedy)


def _gone(store: Store, prefix: str, jobs: Sequence[QueueJob]) -> Iterator[Finding]:
    for job in jobs[:TOLD]:
        layout = JobLayout(prefix=prefix, tenant=job.tenant, job_id=dataset_id(job.job_id))
        if store.head(layout.job) is None:
            text = f"the queue has it, the store has no {layout.job}"
            remedy = "bring its folder back from a copy, or cancel it"
            yield Finding(f"job {job.job_id}", "fail", text, remedy)


def _state(job: QueueJob) -> JobState:
    return state_of(
        job.state,
        job.outcome,
        started=job.first_claim_ms is not None,
        in_flight=job.units_in_flight,
        accounted=job.accounted,
    )


def _units(leases: Sequence[LeaseRecord]) -> str:
    shown = ", ".join(f"{one.job_id}/{one.unit}" for one in leases[:3])
    return shown if len(leases) <= 3 else f"{shown}, ..."


def _now_ms() -> int:
    return round(time.time() * 1000)
