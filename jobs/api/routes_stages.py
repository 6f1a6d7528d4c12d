"""The route that says where a job's time goes while it runs."""

from fastapi import APIRouter

from jobs.api.problems import responses
from jobs.api.routes_jobs import JobId
from jobs.api.services import UsesServices
from jobs.rounds import read_accepted
from jobs.stages import Stages, latest_stages

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get(
    "/jobs/{job_id}/stages",
    summary="What takes how long just now",
    responses=responses(404, 422, 503),
)
def job_stages(job_id: JobId, services: UsesServices) -> Stages:
    """The stages of its latest shards (up to 16), and what holds them up; also while it runs.

    Empty before a shard is committed. `timing` has the whole job once it has ended.
    """
    views, settings = services.views, services.settings
    views.view(job_id)
    accepted = read_accepted(services.store, settings.s3_prefix, services.tenant, job_id)
    layout = views.layout(job_id)
    return latest_stages(services.store, layout, job_id, accepted, services.queue.job(job_id))
