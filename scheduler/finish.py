"""Finishing jobs: the dataset's last files, then the queue's last word."""

import logging

from redis import RedisError

from jobs.catalog import Catalog
from jobs.errors import DamagedJob, FewstepError, NotFound
from jobs.finish import facts_of, finish_job
from jobs.given_up import commit_given_up
from jobs.layout import JobLayout, layout_of
from jobs.queue_values import QueueJob
from jobs.results import Ended, write_outcome
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job
from jobs.states import JobState
from jobs.store import Store

log = logging.getLogger(__name__)


def finish_ready(queue: ShardQueue, store: Store, catalog: Catalog, prefix: str) -> int:
    """Finish every job that is accounted for or cancelled; how many.

    A job whose finishing fails stays where it is and is tried again in the next round.
    """
    finished = 0
    for job_id in queue.finishing():
        try:
            finished += _finish(queue, store, catalog, prefix, job_id)
        except (FewstepError, RedisError) as error:
            log.error("finish_failed job=%s error=%s", job_id, error)
        except Exception:
            # One job whose files are broken in a way nobody thought of must not hold up the rest.
            log.exception("finish_broke job=%s", job_id)
    return finished


def _finish(queue: ShardQueue, store: Store, catalog: Catalog, prefix: str, job_id: str) -> bool:
    record = queue.job(job_id)
    if record is None:
        return False
    layout = JobLayout(prefix=prefix, tenant=record.tenant, job_id=job_id)
    if record.state == "cancel":
        write_outcome(store, layout, _ended(record, JobState.CANCELLED, "cancelled by its user"))
        queue.finish(job_id, "cancelled")
        log.info("cancelled job=%s", job_id)
        return True
    try:
        job = read_job(store, prefix, record.tenant, job_id)
    except (NotFound, DamagedJob) as error:
        write_outcome(store, layout, _ended(record, JobState.FAILED, str(error)))
        queue.finish(job_id, "failed")
        return True
    layout = layout_of(job, prefix)
    commit_given_up(store, job, layout, queue.pieces(job_id).dead, record.max_attempts)
    result = finish_job(store, layout, job, facts_of(job, catalog))
    if not result.complete:
        # Somebody removed manifests from the store: this is not ours to guess about.
        missing = ", ".join(f"{first}-{stop - 1}" for first, stop in result.missing[:20])
        log.error("incomplete job=%s missing=%s", job_id, missing)
        why = f"these images are in no shard: {missing}"
        write_outcome(store, layout, _ended(record, JobState.FAILED, why))
        queue.finish(job_id, "failed")
        return True
    queue.finish(job_id, "done")
    log.info("finished job=%s images=%s failed=%s", job_id, result.images, result.failed)
    return True


def _ended(record: QueueJob, state: JobState, reason: str) -> Ended:
    return Ended(
        state=state,
        reason=reason,
        done=record.done_images,
        failed=record.failed_images + record.dead_images,
        started_ms=record.first_claim_ms,
        finished_ms=record.finished_ms or record.last_progress_ms,
    )
