"""A renderer without a net, for tests: real claims and commits, pictures of one colour."""

import uuid
from collections.abc import Sequence

from jobs.catalog import load_catalog
from jobs.commit import commit_unit
from jobs.estimate import note_timing
from jobs.finish import facts_of, finish_job
from jobs.job import Job, image_of
from jobs.layout import layout_of, parse_unit
from jobs.records import Picture
from jobs.specs import read_job
from jobs.spool import fetch_rows
from tests.api_servers import RunningApi
from tests.made_shards import MAKER, TIMES, made_picture


def job_of(api: RunningApi, job_id: str) -> Job:
    """The job as it was accepted."""
    record = api.queue.job(job_id)
    assert record is not None
    return read_job(api.store, api.settings.s3_prefix, record.tenant, job_id)


def render_shards(
    api: RunningApi, job_id: str, *, shards: int = 64, failed: Sequence[int] = ()
) -> int:
    """Claim up to so many units of the job's engine, commit them and say done; how many."""
    job = job_of(api, job_id)
    layout = layout_of(job, api.settings.s3_prefix)
    leases = api.queue.claim(MAKER.worker, uuid.uuid4().hex, job.recipe.engine_key, shards, 60_000)
    for lease in leases:
        assert lease.job_id == job_id, "another job of the same engine waits"
        unit = parse_unit(lease.unit, job.shard_images, job.images)
        pictures = _pictures(api, job, unit.first, unit.stop, failed)
        commit_unit(api.store, api.queue, job, layout, unit, lease.token, 0, pictures, MAKER, TIMES)
        lost = sum(1 for picture in pictures if picture.record.status != "ok")
        assert api.queue.done(job_id, lease.unit, lease.token, failed=lost, device_ms=10) == "ok"
    return len(leases)


def finish_dataset(api: RunningApi, job_id: str) -> None:
    """Do what the scheduler does when all shards are done."""
    job = job_of(api, job_id)
    layout = layout_of(job, api.settings.s3_prefix)
    done = finish_job(api.store, layout, job, facts_of(job, load_catalog()))
    assert done.complete
    assert done.timing is not None
    assert api.queue.finish(job_id, "done") == "ok"
    note_timing(api.queue, job.recipe, done.timing)


def _pictures(
    api: RunningApi, job: Job, first: int, stop: int, failed: Sequence[int]
) -> list[Picture]:
    rows = fetch_rows(api.store, job, first // job.repeats, -(-stop // job.repeats))
    base = first // job.repeats
    return [
        made_picture(job, index, failed=index in failed, row=rows[index // job.repeats - base])
        for index in range(first, stop)
    ]


def seed_of(api: RunningApi, job_id: str, index: int) -> int:
    """The seed that an image of the job must have."""
    job = job_of(api, job_id)
    row = index // job.repeats
    return image_of(job, index, fetch_rows(api.store, job, row, row + 1)[0]).seed
