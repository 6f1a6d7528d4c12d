"""Reading an accepted job back from the store."""

import re
from collections.abc import Iterator

from pydantic import ValidationError

from jobs.errors import DamagedJob
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.store import Store

_ROUND = re.compile(r"-r(\d{1,4})")


_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_JOB = re.compile(r"[a-z2-7]{26}")


def job_folders(store: Store, root: str) -> Iterator[tuple[str, str]]:
    """Tenant and id of every job that has a folder under `root` (which ends in a slash).

    One request for each tenant and thousand jobs, however many shards they have.
    """
    for tenant in store.folders(root):
        if _TENANT.fullmatch(tenant):
            for job_id in store.folders(f"{root}{tenant}/"):
                if _JOB.fullmatch(job_id):
                    yield tenant, job_id


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
