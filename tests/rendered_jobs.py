"""Jobs submitted, rendered and finished as in earnest, but for the pixels, which are made up."""

import io
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow.parquet as pq

from jobs.catalog import load_catalog
from jobs.commit import LeaseArbiter, commit_unit
from jobs.duplicates import near_duplicates
from jobs.filter_columns import MARKS, PHASH, SEED_TRY, TURNED_AWAY
from jobs.job import Image, Job, JobRequest
from jobs.layout import JobLayout, Unit, layout_of
from jobs.picture_hashes import duplicate_rule, within_of
from jobs.queue_values import Lease, QueueJob
from jobs.records import Picture
from jobs.rounds import read_accepted, unit_images
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job
from jobs.spool import fetch_rows
from jobs.store import Store
from jobs.submit import submit_job
from scheduler.finish import finish_ready
from tests.made_shards import MAKER, TIMES, planned_picture
from workers.duplicate import Duplicate, as_duplicate

PREFIX, TENANT = "datasets", "default"
CATALOG = load_catalog()


@dataclass
class Workshop:
    """A real queue and a real store; `broken` are the images of which no picture comes.

    `looks`: image -> the hash of its picture, for jobs that look for near-duplicates.
    """

    queue: ShardQueue
    store: Store
    broken: set[int] = field(default_factory=set)
    looks: dict[int, int] = field(default_factory=dict)

    def submit(self, rows: Iterable[Row], *, key: str = "", **request: Any) -> Job:
        """Submit; the accepted job."""
        done = submit_job(
            self.store,
            self.queue,
            CATALOG,
            prefix=PREFIX,
            tenant=TENANT,
            request=JobRequest(**{"seed": 7} | request),
            rows=rows,
            idempotency_key=key or uuid.uuid4().hex,
            now_ms=1_700_000_000_000,
        )
        return read_job(self.store, PREFIX, TENANT, done.id)

    def layout(self, job: Job) -> JobLayout:
        """Where the job lies."""
        return layout_of(job, PREFIX)

    def claim(self, job: Job, want: int = 1) -> list[Lease]:
        """Claim units of the job's engine."""
        return self.queue.claim("w", uuid.uuid4().hex, job.recipe.engine_key, want, 60_000)

    def unit_of(self, lease: Lease) -> tuple[Job, JobLayout, Unit, list[Image]]:
        """What a renderer learns of a lease."""
        accepted = read_accepted(self.store, PREFIX, TENANT, lease.job_id)
        rows = partial(fetch_rows, self.store)
        unit, images = unit_images(accepted, lease.unit, rows, self.store)
        layout = self.layout(accepted.job).for_unit(unit)
        return accepted.job, layout, unit, images

    def commit(self, lease: Lease) -> int:
        """Commit a unit as a renderer does; how many of its images failed."""
        job, layout, unit, images = self.unit_of(lease)
        pictures = [self._picture(job, layout, image) for image in images]
        pictures = self._sifted(job, pictures)
        arbiter = LeaseArbiter(self.queue, lease.job_id, lease.unit)
        ids = (job, layout, unit, lease.token, lease.attempt - 1)
        done = commit_unit(self.store, arbiter, *ids, pictures, MAKER, TIMES)
        return done.manifest.failed

    def render(self, job: Job, units: int = 1_000) -> None:
        """Render up to so many units of the job's engine, one after another."""
        for _ in range(units):
            leases = self.claim(job)
            if not leases:
                return
            self.say_done(leases[0], self.commit(leases[0]))

    def say_done(self, lease: Lease, failed: int = 0) -> str:
        """The last word of a renderer."""
        arbiter: Any = "s3" if self.store.honours_absent else "redis"
        return self.queue.done(lease.job_id, lease.unit, lease.token, failed, 10, arbiter=arbiter)

    def finish(self) -> int:
        """What the scheduler does with jobs that are accounted for."""
        return finish_ready(self.queue, self.store, CATALOG, PREFIX)

    def record(self, queue_id: str) -> QueueJob:
        """The job as the queue holds it."""
        found = self.queue.job(queue_id)
        assert found is not None
        return found

    def shards(self, job: Job) -> dict[str, bytes]:
        """Every object among the job's shards."""
        keys = [found.key for found in self.store.list(self.layout(job).shards)]
        return {key: self.store.get(key) for key in keys}

    def rows(self, job: Job, folder: str = "train") -> list[dict[str, Any]]:
        """Every row of the dataset's parquet files, or of the quarantine's."""
        keys = [found.key for found in self.store.list(f"{self.layout(job).root}{folder}/")]
        tables = [io.BytesIO(self.store.get(key)) for key in keys if key.endswith(".parquet")]
        return [row for table in tables for row in pq.read_table(table).to_pylist()]

    def _sifted(self, job: Job, pictures: list[Picture]) -> list[Picture]:
        """What a renderer does about pictures of its unit that resemble each other."""
        rule = duplicate_rule(job)
        seen = [n for n, one in enumerate(pictures) if PHASH in one.record.filtered]
        if rule is None or not seen:
            return pictures
        hashes = [self.looks[pictures[n].record.image] for n in seen]
        found, apart = near_duplicates(hashes, within_of(rule))
        done = list(pictures)
        for at, n in enumerate(seen):
            if found[at] >= 0:
                of = pictures[seen[found[at]]].record.key
                gone = rule.policy != "keep"
                words = rule.name if gone else ""
                one = Duplicate(rule.name, of, int(apart[at]), gone, words)
                done[n] = as_duplicate(pictures[n], one)
        return done

    def _picture(self, job: Job, layout: JobLayout, image: Image) -> Picture:
        made = planned_picture(job, layout, image, failed=image.index in self.broken)
        if not job.filters:
            return made
        filtered: dict[str, Any] = {SEED_TRY: image.seed_try, TURNED_AWAY: "", MARKS: ""}
        if image.index in self.looks and image.index not in self.broken:
            filtered[PHASH] = f"{self.looks[image.index]:016x}"
        record = made.record.model_copy(update={"filtered": filtered})
        return made.model_copy(update={"record": record})
