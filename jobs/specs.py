"""Reading an accepted job back from the store."""

from pydantic import ValidationError

from jobs.errors import DamagedJob
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.store import Store


def read_job(store: Store, prefix: str, tenant: str, job_id: str) -> Job:
    """The job as it was accepted; raises NotFound, or DamagedJob where it is damaged."""
    key = JobLayout(prefix=prefix, tenant=tenant, job_id=job_id).job
    try:
        return Job.model_validate_json(store.get(key))
    except ValidationError as error:
        raise DamagedJob(
            f"the job's file does not read as a job: {error.errors()[0]['msg']}",
            where=key,
            remedy="it was written by another version, or changed by hand",
        ) from error
