"""A renderer without a net, for tests: real claims and commits, pictures of one colour."""

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from jobs.catalog import load_catalog
from jobs.commit import LeaseArbiter, commit_unit
from jobs.estimate import note_timing
from jobs.finish import facts_of, finish_job
from jobs.job import Job, image_of
from jobs.layout import layout_of
from jobs.queue_values import Lease
from jobs.rounds import read_accepted, unit_images
from jobs.specs import read_job, round_number
from jobs.spool import fetch_rows
from scheduler.finish import finish_ready
from tests.api_servers import RunningApi
from tests.made_shards import MAKER, TIMES, planned_picture


def job_of(api: RunningApi, job_id: str) -> Job:
    """The job as it was accepted."""
    record = api.queue.job(job_id)
    assert record is not None
    return read_job(api.store, api.settings.s3_prefix, record.tenant, job_id)


def render_shards(
    api: RunningApi, job_id: str, *, shards: int = 64, failed: Sequence[int] = ()
) -> int:
    """Claim up to so many units of the job's engine, commit them and say done; how many."""
    leases = api.queue.claim(
        MAKER.worker, uuid.uuid4().hex, job_of(api, job_id).recipe.engine_key, shards, 60_000
    )
    for lease in leases:
        assert lease.job_id == job_id, "another job of the same engine waits"
        _commit(api, lease, failed)
    return len(leases)


@contextmanager
def rendering(api: RunningApi, *, poison: str = "poison") -> Iterator[None]:
    """Render and finish whatever comes, as long as the block lasts; `poison` prompts fail."""
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(api, stop, poison), name="renderer")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def _serve(api: RunningApi, stop: threading.Event, poison: str) -> None:
    while not stop.wait(0.02):
        for waiting in api.queue.backlog():
            nonce = uuid.uuid4().hex
            for lease in api.queue.claim(MAKER.worker, nonce, waiting.engine_key, 4, 60_000):
                _commit(api, lease, (), poison)
        for job_id in api.queue.finishing():
            finish_dataset(api, job_id)


def _commit(api: RunningApi, lease: Lease, failed: Sequence[int], poison: str = "poison") -> None:
    job, prefix = job_of(api, lease.job_id), api.settings.s3_prefix
    accepted = read_accepted(api.store, prefix, job.tenant, lease.job_id)
    unit, images = unit_images(accepted, lease.unit, partial(fetch_rows, api.store), api.store)
    layout = layout_of(job, prefix).for_unit(unit)
    pictures = [
        planned_picture(
            job, layout, image, failed=image.index in failed or poison in image.row.prompt
        )
        for image in images
    ]
    arbiter = LeaseArbiter(api.queue, lease.job_id, lease.unit)
    commit_unit(api.store, arbiter, job, layout, unit, lease.token, 0, pictures, MAKER, TIMES)
    lost = sum(1 for picture in pictures if picture.record.status != "ok")
    assert api.queue.done(lease.job_id, lease.unit, lease.token, failed=lost, device_ms=10) == "ok"


def finish_dataset(api: RunningApi, job_id: str) -> None:
    """Do what the scheduler does when all shards are done."""
    if round_number(job_id):
        finish_ready(api.queue, api.store, load_catalog(), api.settings.s3_prefix)
        return
    job = job_of(api, job_id)
    layout = layout_of(job, api.settings.s3_prefix)
    record = api.queue.job(job_id)
    if record is not None and record.state == "cancel":
        finish_job(api.store, layout, job, facts_of(job, load_catalog()), ended="cancelled")
        assert api.queue.finish(job_id, "cancelled") == "ok"
        return
    if record is not None and record.images < job.images:
        assert finish_ready(api.queue, api.store, load_catalog(), api.settings.s3_prefix)
        return
    done = finish_job(api.store, layout, job, facts_of(job, load_catalog()))
    assert done.complete
    assert done.timing is not None
    assert api.queue.finish(job_id, "done") == "ok"
    note_timing(api.queue, job.recipe, done.timing)


def seed_of(api: RunningApi, job_id: str, index: int) -> int:
    """The seed that an image of the job must have."""
    job = job_of(api, job_id)
    row = index // job.repeats
    return image_of(job, index, fetch_rows(api.store, job, row, row + 1)[0]).seed
