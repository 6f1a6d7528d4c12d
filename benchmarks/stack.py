"""A Redis and an S3 server of this run's own, and a renderer that takes jobs from them."""

import io
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.servers import running_servers
from benchmarks.workload import THREADS
from jobs.catalog import load_catalog
from jobs.job import Job, JobRequest
from jobs.layout import layout_of
from jobs.recipe import Recipe
from jobs.redis_client import control_client, heartbeat_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import read_rows
from jobs.specs import read_job
from jobs.store import Store
from jobs.submit import submit_job
from workers.leases import LeaseKeeper
from workers.loading import load_parts
from workers.shard_loop import ShardLoop

#: A round that takes longer than this has failed.
ROUND_S = 900.0


@dataclass(frozen=True)
class Stack:
    """Addresses of the servers, as every side is told them."""

    settings: Settings
    store: Store
    queue: ShardQueue

    def submit(self, texts: list[str], request: JobRequest) -> Job:
        """Submit a job of these prompts as the API does; the accepted job."""
        done = submit_job(
            self.store,
            self.queue,
            load_catalog(),
            prefix=self.settings.s3_prefix,
            tenant=self.settings.tenant,
            request=request,
            rows=read_rows(io.BytesIO("\n".join(texts).encode()), "text", "prompts"),
            idempotency_key=uuid.uuid4().hex,
            now_ms=round(time.time() * 1e3),
        )
        return read_job(self.store, self.settings.s3_prefix, self.settings.tenant, done.id)


@contextmanager
def running_stack() -> Iterator[Stack]:
    """The servers of the one-machine stack, as a submission and a renderer see them."""
    with running_servers(threads=THREADS) as (settings, store):
        url = settings.redis_url.get_secret_value()
        yield Stack(settings, store, ShardQueue(control_client(url)))


class Renderer:
    """What the Ray actor holds, without Ray: engine, lease keeper, and a shard loop per job."""

    def __init__(self, stack: Stack, recipe: Recipe) -> None:
        self._stack = stack
        self._recipe = recipe
        settings = stack.settings
        self._keeper = LeaseKeeper(
            ShardQueue(heartbeat_client(settings.redis_url.get_secret_value())),
            "bench",
            settings.lease_ms,
            settings.renew_ms,
            lambda: {"actor": "bench", "engine_key": recipe.engine_key},
        )
        self._parts = load_parts(recipe.model_dump_json(), settings, self._keeper)
        self._keeper.start()

    def close(self) -> None:
        """Stop renewing leases."""
        self._keeper.stop()

    def start(self, job: Job) -> "Running":
        """Begin to render `job`; every other job of the engine must be done."""
        stack = self._stack
        loop = ShardLoop(
            worker="bench",
            engine_key=job.recipe.engine_key,
            settings=stack.settings,
            queue=stack.queue,
            store=stack.store,
            keeper=self._keeper,
            renderer=self._parts.renderer,
            maker=self._parts.maker("bench"),
        )
        return Running(stack, job, loop)

    def render(self, job: Job) -> float:
        """Render `job` to its end; seconds from the first claim to the last shard's done."""
        return self.start(job).finish()


class Running:
    """A job that is being rendered."""

    def __init__(self, stack: Stack, job: Job, loop: ShardLoop) -> None:
        self._stack = stack
        self._job = job
        self._loop = loop
        self._thread = threading.Thread(target=loop.run, name="device")
        self._started = time.perf_counter()
        self._thread.start()

    @property
    def images_done(self) -> int:
        """Images whose shards are committed."""
        return self._loop.images_done

    def finish(self) -> float:
        """Wait for the last shard, check it, and remove the dataset; seconds since the start."""
        pause = threading.Event()
        try:
            while self.images_done < self._job.images:
                if not self._thread.is_alive():
                    raise RuntimeError("the renderer ended before its job")
                if time.perf_counter() - self._started > ROUND_S:
                    raise RuntimeError(f"a round took more than {ROUND_S:g} s")
                pause.wait(0.005)
            took = time.perf_counter() - self._started
        finally:
            self._loop.draining.set()
            self._thread.join()
        self._check()
        return took

    def _check(self) -> None:
        """What was measured must be a whole dataset, or the figure is worth nothing."""
        record = self._stack.queue.job(self._job.id)
        if record is None or record.done_images != self._job.images:
            raise RuntimeError(f"not every image was made: {record}")
        layout = layout_of(self._job, self._stack.settings.s3_prefix)
        tars = [one for one in self._stack.store.list(layout.root) if one.key.endswith(".tar")]
        if len(tars) != self._job.shards:
            raise RuntimeError(f"{len(tars)} tars of {self._job.shards} shards are in the store")
        self._stack.store.delete_prefix(layout.root)
        self._stack.store.delete_prefix(layout.scratch)
