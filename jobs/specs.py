"""Reading an accepted job back from the store."""

import re

from pydantic import ValidationError

from jobs.errors import DamagedJob
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.store import Store

_ROUND = re.compile(r"-r(\d{1,4})")


def dataset_id(queue_id: str) -> str:
    """The id of the job whose dataset it is: a later round (`JOB-r1`) is of the job's own."""
    return queue_id.partition("-")[0]


def round_number(queue_id: str) -> int:
    """Which round of the job it is: 0 the job itself, 1 the first retry."""
    match = _ROUND.fullmatch(queue_id[len(dataset_id(queue_id)) :])
    return int(match[1]) if match else 0


def read_job(store: Store, prefix: str, tenant: str, job_id: str) -> Job:
    """The job as it was accepted, also by the id of a later round of it.

    Raises NotFound, or DamagedJob where it is damaged.
    """
    key = JobLayout(prefix=prefix, tenant=tenant, job_id=dataset_id(job_id)).job
    try:
        return Job.model_validate_json(store.get(key))
    except ValidationError as error:
        raise DamagedJob(
            f"the job's file does not read as a job: {error.errors()[0]['msg']}",
            where=key,
            remedy="it was written by another version, or changed by hand",
        ) from error
