"""How long it takes to finish a dataset of many shards, and to drop rows from it.

    python -m benchmarks.repairs [--shards 2000]

Its pictures are made up, four to a shard: what is measured is what grows with the shards. The
store is the one of the one-machine stack, on this machine.
"""

import argparse
import io
import random
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from PIL import Image as Pillow

from benchmarks.servers import running_servers
from jobs.catalog import load_catalog
from jobs.commit import commit_unit
from jobs.draft import release
from jobs.drop import drop_rows
from jobs.filter_columns import MARKS, PHASH, SEED_TRY, TURNED_AWAY
from jobs.filters import FilterRequest
from jobs.finish import Facts, finish_job
from jobs.job import Job, JobRequest, image_of
from jobs.layout import JobLayout, layout_of, parse_unit
from jobs.records import ImageRecord, Maker, Picture, ShardTimes
from jobs.redis_client import control_client
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job
from jobs.store import Store
from jobs.submit import submit_job

SHARD_IMAGES, WRITERS = 4, 8
#: The share of pictures that resemble an earlier one.
TWINS = 0.002


class Always:
    """Nobody else writes these units."""

    def win(self, job_id: str, unit: str, token: str, /) -> str:
        """Always us."""
        return token


def main() -> None:
    """Print each time on a line of its own."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--shards", type=int, default=2_000)
    shards = asked.parse_args().shards
    with running_servers() as (settings, store):
        queue = ShardQueue(control_client(settings.redis_url.get_secret_value()))
        job = submitted(store, queue, settings.s3_prefix, shards)
        layout = layout_of(job, settings.s3_prefix)
        with timed(f"committing {shards} shards"):
            commit_all(store, layout, job)
        with timed("finishing the job, with a search for near-duplicates"):
            done = finish_job(store, layout, job, Facts())
        print(f"  {done.failed} of {done.images} pictures were turned away")
        with timed("finishing it once more: nothing is new"):
            finish_job(store, layout, job, Facts())
        wish = {"prefix": settings.s3_prefix, "tenant": job.tenant, "job_id": job.id}
        for number, where in enumerate(("image in (5, 777)", "row < 200")):
            with timed(f"dropping {where}"):
                drop_rows(
                    *(store, queue, Facts()),
                    **wish,
                    where=where,
                    idempotency_key=f"{number}",
                    now_ms=job.submitted_ms,
                )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"the most memory this process held: {peak:.0f} MiB")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long it took."""
    begun = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - begun:.1f} s", flush=True)


def submitted(store: Store, queue: ShardQueue, prefix: str, shards: int) -> Job:
    """A job of so many shards."""
    rows = (Row(prompt=f"prompt {n}") for n in range(shards * SHARD_IMAGES))
    rule = FilterRequest(name="near_duplicate", policy="drop")
    request = JobRequest(seed=1, shard_images=SHARD_IMAGES, filters=(rule,))
    done = submit_job(
        *(store, queue, load_catalog()),
        prefix=prefix,
        tenant="default",
        request=request,
        rows=rows,
        idempotency_key="repairs",
        now_ms=round(time.time() * 1e3),
    )
    return read_job(store, prefix, "default", done.id)


def commit_all(store: Store, layout: JobLayout, job: Job) -> None:
    """Commit every shard with made-up pictures."""
    chance, hashes = random.Random(1), list[int]()
    for _ in range(job.images):
        again = hashes and chance.random() < TWINS
        hashes.append(chance.choice(hashes) if again else chance.getrandbits(64))
    with ThreadPoolExecutor(WRITERS) as writers:
        for _ in writers.map(partial(commit, store, layout, job, hashes), range(job.shards)):
            """Whatever went wrong is raised here."""


def commit(store: Store, layout: JobLayout, job: Job, hashes: list[int], shard: int) -> None:
    """Commit one shard."""
    unit = parse_unit(f"{shard}", job.shard_images, job.images)
    maker = Maker(
        worker="made-up", device="cpu", torch="", diffusers="", fewstep=release(), model_sha256=""
    )
    pictures = [picture(job, layout, index, hashes[index]) for index in unit.indexes]
    commit_unit(store, Always(), job, layout, unit, "token", 0, pictures, maker, ShardTimes())


def picture(job: Job, layout: JobLayout, index: int, look: int) -> Picture:
    """A picture of one colour with the hash of another."""
    image, out = image_of(job, index, Row(prompt=f"prompt {index}")), io.BytesIO()
    Pillow.new("RGB", (64, 64), (index % 256, index // 256 % 256, 90)).save(out, "PNG")
    key = layout.sample(index)
    record = ImageRecord(
        **{"key": key, "image": index, "row": image.row_index, "repeat": image.repeat},
        prompt=image.row.prompt,
        negative_prompt="",
        seed=image.seed,
        status="ok",
        file_name=f"{key}.png",
        bytes=len(out.getvalue()),
        filtered={SEED_TRY: 0, TURNED_AWAY: "", MARKS: "", PHASH: f"{look:016x}"},
    )
    return Picture(record=record, data=out.getvalue())


if __name__ == "__main__":
    main()
