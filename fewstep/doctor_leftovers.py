"""What lies about in the store: jobs that the queue forgot, uploads and shards nobody finished."""

import time
from collections.abc import Iterator
from itertools import islice

from fewstep.findings import Finding
from jobs.control import read_course
from jobs.layout import JobLayout
from jobs.shard_queue import ShardQueue
from jobs.store import Store

#: Looked at, at most: a doctor must not read through a bucket of millions.
JOBS_SEEN, OBJECTS_SEEN = 500, 20_000
#: Younger ones may belong to somebody at work.
OLD_MS = 24 * 3_600_000


def leftovers_found(store: Store, queue: ShardQueue, prefix: str) -> Iterator[Finding]:
    """Jobs to restore, uploads in parts that were never completed, shards that were staged."""
    yield _forgotten(store, queue, prefix)
    uploads = [one for one in store.unfinished_uploads(f"{prefix}/") if _is_old(one)]
    if uploads:
        text = f"{len(uploads)} were begun more than a day ago and never completed: they cost room"
        remedy = "run `fewstep sweep`; a lifecycle rule AbortIncompleteMultipartUpload does it too"
        yield Finding("uploads", "warn", text, remedy)
    else:
        yield Finding("uploads", "ok", "none was left in parts")
    staged = list(islice(_old_staged(store, prefix), 1_000))
    if staged:
        folder = staged[0].rpartition("/")[0]
        text = f"{len(staged)} objects are older than a day, in {folder}/ for one"
        remedy = "run `fewstep sweep`: it removes those of jobs that have ended"
        yield Finding("staged shards", "warn", text, remedy)
    else:
        yield Finding("staged shards", "ok", "none is old")


def _forgotten(store: Store, queue: ShardQueue, prefix: str) -> Finding:
    """Accepted jobs that have not ended, and of which the queue knows nothing."""
    lost = [
        job for job in islice(_jobs_in(store, prefix), JOBS_SEEN) if _is_lost(store, queue, job)
    ]
    if not lost:
        return Finding("queue", "ok", "it knows every job of the store that has not ended")
    text = f"it does not know {len(lost)} jobs of the store that have not ended: {lost[0].job_id}"
    if not queue.jobs(limit=1).jobs:
        text = f"Redis is empty, and {len(lost)} jobs of the store have not ended"
    return Finding("queue", "fail", text, "the scheduler reads them back; or `fewstep restore`")


def _jobs_in(store: Store, prefix: str) -> Iterator[JobLayout]:
    for tenant in store.folders(f"{prefix}/"):
        if not tenant.startswith("_"):
            for job in store.folders(f"{prefix}/{tenant}/"):
                yield JobLayout(prefix=prefix, tenant=tenant, job_id=job)


def _is_lost(store: Store, queue: ShardQueue, layout: JobLayout) -> bool:
    if queue.job(layout.job_id) is not None:
        return False
    ended = any(store.head(key) is not None for key in (layout.success, layout.outcome))
    if ended or store.head(layout.job) is None:
        return False
    return read_course(store, layout, layout.job_id).state != "refused"


def _old_staged(store: Store, prefix: str) -> Iterator[str]:
    for found in islice(store.list(f"{prefix}/_scratch/"), OBJECTS_SEEN):
        if "/staged/" in found.key and _is_old(found.modified_ms):
            yield found.key


def _is_old(moment_ms: int) -> bool:
    return moment_ms < time.time() * 1000 - OLD_MS
