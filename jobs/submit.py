"""Accepting a job: check everything, spool its rows, write it down, and tell the queue."""

import re
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from jobs.allowance import Allowance
from jobs.budget import Budget
from jobs.catalog import Catalog
from jobs.control import Course, forget_course, read_budget, read_course, write_course
from jobs.draft import draft_job, order_of
from jobs.errors import Conflict, FewstepError, InvalidInput, NoCapacity, QuotaExceeded
from jobs.estimate import measured_cost
from jobs.filters import JobFilter, resolve_filters
from jobs.intake import RowTally, tally_of, write_rows
from jobs.job import Job, JobRequest, Submission, job_id
from jobs.keys import Quota
from jobs.layout import JobLayout, segment
from jobs.row_checks import RowRecipes
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import SourceRows
from jobs.specs import read_job
from jobs.store import PutReply, Store
from jobs.templates.template import Template

_KEY = re.compile(r"[A-Za-z0-9._-]{1,128}")


def submit_job(
    store: Store,
    queue: ShardQueue,
    catalog: Catalog,
    *,
    prefix: str,
    tenant: str,
    request: JobRequest,
    rows: Iterable[Row] | Template,
    idempotency_key: str,
    now_ms: int,
    quota: Quota | None = None,
    allowance: Allowance | None = None,
) -> Submission:
    """Accept a job of any size with O(1) in the queue and bounded memory.

    The same tenant and key is the same job: sent again it changes nothing, and completes what a
    death between two steps left open. Raises InvalidInput (nothing stays written), Conflict for
    a key that was used for another job, NoCapacity where too many jobs are open (the job stays
    written down, and sending it again tries again), QuotaExceeded where the tenant has used what
    `quota` grants; `allowance` counts its images.
    """
    key = checked_key(idempotency_key)
    recipes, filters = resolve_request(catalog, request)
    layout = JobLayout(prefix=prefix, tenant=segment(tenant, "tenant"), job_id=job_id(tenant, key))
    # Asked first, so that nothing is written while the queue does not answer.
    known = queue.job(layout.job_id) is not None
    if not known:
        check_deadline(request, now_ms)
    # A folder of its own for each try, so that a conflicting resend never touches accepted rows.
    folder = f"{layout.scratch}rows-{uuid.uuid4().hex[:16]}/"
    tally = _tally(request, rows, recipes)
    job = _spooled(store, layout, request, recipes, filters, tally, folder, now_ms)
    # What the queue has was counted on the day on which it was accepted.
    if not known:
        _spend(store, job, folder, quota, allowance)
    accepted = _written_down(store, layout, job)
    if accepted.rows.prefix != folder:
        store.delete_prefix(folder)
        if accepted.request_sha256 != job.request_sha256:
            raise _conflict(accepted.id)
        # It ended so long ago that the queue has forgotten it.
        if not known and any(store.head(key) for key in (layout.success, layout.outcome)):
            return _submission(accepted, created=False)
    try:
        budget = read_budget(store, layout, accepted)
        done = _queued(queue, accepted, quota, budget)
    except (NoCapacity, QuotaExceeded):
        # A queue that is rebuilt from the store must not take in what was refused here.
        write_course(store, layout, accepted.id, Course(state="refused"))
        raise
    resent = accepted.rows.prefix != folder
    # Also where the queue had it: the try before may have died between the two.
    if resent and read_course(store, layout, accepted.id).state == "refused":
        forget_course(store, layout, accepted.id)
    return done


def dry_run_job(
    catalog: Catalog,
    *,
    tenant: str,
    request: JobRequest,
    rows: Iterable[Row] | Template,
    idempotency_key: str,
    glimpse: range = range(0),
    shown: list[Row] | None = None,
    within_s: float | None = None,
) -> Submission:
    """What `submit_job` would answer, checked and counted as it does, and nothing written.

    The rows whose numbers are in `glimpse` are added to `shown`. Raises TooLarge where reading
    them takes longer than `within_s`.
    """
    name = job_id(tenant, checked_key(idempotency_key))
    layout = JobLayout(prefix="", tenant=segment(tenant, "tenant"), job_id=name)
    recipes, filters = resolve_request(catalog, request)
    check_deadline(request, time.time_ns() // 1_000_000)
    tally = _tally(request, rows, recipes, glimpse)
    tally.within_s = within_s
    job = _spooled(_Nowhere(), layout, request, recipes, filters, tally, folder="", now_ms=0)
    if shown is not None:
        shown += tally.shown
    return _submission(job, created=False)


class _Nowhere(Store):
    """A store that keeps nothing, so that a dry run checks exactly what the real one does."""

    def __init__(self) -> None:
        pass

    def put(self, key: str, data: bytes, **settings: object) -> PutReply:
        """Take it as written."""
        return PutReply(stored=True, etag="")

    def delete(self, keys: Iterable[str]) -> None:
        """There is nothing to delete."""

    def delete_prefix(self, prefix: str) -> int:
        """There is nothing to delete."""
        return 0


def _tally(
    request: JobRequest,
    rows: Iterable[Row] | Template,
    recipes: RowRecipes,
    glimpse: range = range(0),
) -> RowTally:
    if isinstance(rows, SourceRows):
        # There, a bad row is named by its file and line, or left out.
        rows.check = recipes.check
    return tally_of(request.expand, rows, glimpse, recipes.count_in)


def check_deadline(budget: Budget, now_ms: int) -> None:
    """Refuse a deadline that is over already."""
    if budget.deadline_ms is not None and budget.deadline_ms <= now_ms:
        raise InvalidInput(
            f"{budget.deadline:%Y-%m-%d %H:%M %Z} is over",
            where="deadline",
            remedy="give a later one",
        )


def resolve_request(
    catalog: Catalog, request: JobRequest
) -> tuple[RowRecipes, tuple[JobFilter, ...]]:
    """The recipe, for rows with settings of their own too, and the filters; raises InvalidInput."""
    recipes = RowRecipes(catalog, request.recipe, request.filters)
    return recipes, resolve_filters(catalog.filters, request.filters, recipes.recipe)


def checked_key(key: str) -> str:
    """`key` if it may identify a submission; raises InvalidInput otherwise."""
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            "this is no idempotency key",
            where="Idempotency-Key",
            remedy="1 to 128 characters of A-Z a-z 0-9 . _ -; a fresh UUID for each new job",
        )
    return key


def _spooled(
    store: Store,
    layout: JobLayout,
    request: JobRequest,
    recipes: RowRecipes,
    filters: tuple[JobFilter, ...],
    tally: RowTally,
    folder: str,
    now_ms: int,
) -> Job:
    """The job with its rows in the store; where anything is wrong with it, no row stays there."""
    try:
        found = write_rows(store, tally, recipes, folder)
        job = draft_job(layout, request, recipes.recipe, found, tally, now_ms, filters)
        order_of(job)
    except FewstepError:
        # The first error is the one to tell, even where cleaning up fails too.
        with suppress(FewstepError):
            store.delete_prefix(folder)
        raise
    return job


def _written_down(store: Store, layout: JobLayout, job: Job) -> Job:
    """The job that the store holds under this id: ours, or the one accepted before.

    When this fails the rows stay: the job may be there all the same, its reply lost.
    """
    reply = store.put(
        layout.job,
        job.model_dump_json(indent=1).encode(),
        content_type="application/json",
        metadata={"token": job.rows.prefix.rstrip("/").rpartition("-")[2]},
        if_absent=True,
    )
    return job if reply.stored else read_job(store, layout.prefix, layout.tenant, layout.job_id)


def _spend(
    store: Store, job: Job, folder: str, quota: Quota | None, allowance: Allowance | None
) -> None:
    """Count the job's images; where its tenant may have no more today, no row stays."""
    if quota is None or quota.images_a_day is None or allowance is None:
        return
    try:
        through = job.images_of(job.images)
        allowance.spend_images(job.tenant, job.id, through, quota.images_a_day)
    except FewstepError:
        with suppress(FewstepError):
            store.delete_prefix(folder)
        raise


def _queued(queue: ShardQueue, job: Job, quota: Quota | None, budget: Budget) -> Submission:
    order, cost = order_of(job, quota, budget), measured_cost(queue, job.recipe)
    known = None if cost is None else cost * job.rows.cost
    reply = queue.submit(order if known is None else replace(order, unit_cost=known))
    if reply.outcome == "full":
        if quota is not None and queue.open_jobs_of(job.tenant) >= quota.open_jobs:
            raise QuotaExceeded(
                f"{quota.open_jobs} jobs of yours are open, and no more may be",
                where="open_jobs",
                remedy="send it again with the same Idempotency-Key when one has ended",
            )
        raise NoCapacity(
            "too many jobs are open",
            remedy="send it again with the same Idempotency-Key when one has ended",
        )
    if reply.outcome == "conflict":
        raise _conflict(reply.job_id)
    return _submission(job, created=reply.outcome == "ok")


def _conflict(known: str) -> Conflict:
    return Conflict(
        f"this key was used for job {known}, whose prompts or settings are others",
        where="Idempotency-Key",
        remedy="a new key for a new job; the same body for a resend",
    )


def _submission(job: Job, *, created: bool) -> Submission:
    through = job.images_of(job.images)
    return Submission(
        id=job.id,
        created=created,
        images=through,
        shards=-(-through // job.shard_images),
        warnings=job.warnings,
        relative_cost=round(job.rows.cost, 6),
    )
