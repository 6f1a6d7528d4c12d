"""Rebuilding the queue from the store, after Redis has lost its memory."""

import re
from collections.abc import Iterator

from jobs.draft import order_of
from jobs.job import Job
from jobs.key_store import KeyStore
from jobs.keys import Quota
from jobs.layout import JobLayout, layout_of
from jobs.manifest import Manifest
from jobs.queue_values import DoneUnit
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job
from jobs.store import Store

_JOB = re.compile(r"/(?P<tenant>[a-z0-9-]+)/(?P<job>[a-z2-7]{26})/job\.json$")


def recover_jobs(store: Store, queue: ShardQueue, prefix: str) -> Iterator[str]:
    """Tell the queue of every job in the store that has not ended and that it does not know.

    Units with a manifest count as done; the others are rendered, those that were in flight once
    more, onto the same names. Yields each job's id as it is back. May be repeated, and may run
    while the queue is in use. Reads the whole prefix: minutes for millions of shards.
    """
    quotas = KeyStore(store, prefix).quotas()
    for found in store.list(f"{prefix}/"):
        match = _JOB.search(found.key)
        if match is None or found.key.startswith(f"{prefix}/_scratch/"):
            continue
        layout = JobLayout(prefix=prefix, tenant=match["tenant"], job_id=match["job"])
        quota = quotas.get(layout.tenant)
        if not _ended(store, layout) and _recover(store, queue, layout, quota):
            yield layout.job_id


def _ended(store: Store, layout: JobLayout) -> bool:
    return any(store.head(key) is not None for key in (layout.success, layout.outcome))


def _recover(store: Store, queue: ShardQueue, layout: JobLayout, quota: Quota | None) -> bool:
    known = queue.job(layout.job_id)
    if known is not None and not known.restoring:
        return False
    job = read_job(store, layout.prefix, layout.tenant, layout.job_id)
    queue.submit(order_of(job, quota), restoring=True)
    queue.restore(job.id, list(_done_units(store, job, layout_of(job, layout.prefix))))
    return True


def _done_units(store: Store, job: Job, layout: JobLayout) -> Iterator[DoneUnit]:
    for found in store.list(layout.shards):
        if found.key.endswith("_stats.json"):
            manifest = Manifest.model_validate_json(store.get(found.key))
            yield DoneUnit(manifest.unit, manifest.failed)
