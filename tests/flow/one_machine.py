"""The whole way from prompts to dataset without Ray: submit, shard loops on threads, finish."""

import io
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.dataset

from jobs.catalog import Catalog
from jobs.job import Image, Job, JobRequest
from jobs.layout import JobLayout, layout_of
from jobs.recipe import Recipe
from jobs.records import Maker
from jobs.redis_client import control_client, heartbeat_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import read_rows
from jobs.specs import read_job
from jobs.store import Store
from jobs.submit import submit_job
from scheduler.finish import finish_ready
from tests.servers import wait_until
from workers.engine import Engine
from workers.leases import LeaseKeeper
from workers.mending import MendingRenderer
from workers.render import Batch, BatchRenderer, Precision
from workers.shapes import BatchShapes
from workers.shard_loop import ShardLoop

PREFIX = "datasets"


@dataclass
class House:
    """Real Redis, real S3, real weights; `render` runs renderers on threads until a job ends."""

    redis_url: str
    store: Store
    catalog: Catalog
    engine: Engine
    settings: Settings = field(default_factory=lambda: Settings(lease_ms=20_000, renew_ms=500))

    def __post_init__(self) -> None:
        self.queue = ShardQueue(control_client(self.redis_url))
        self._turn = threading.Lock()

    def submit(self, prompts: str | bytes, request: JobRequest, *, source: str = "text") -> Job:
        """Submit the lines of a text or JSONL file; the accepted job."""
        raw = prompts.encode() if isinstance(prompts, str) else prompts
        done = submit_job(
            self.store,
            self.queue,
            self.catalog,
            prefix=PREFIX,
            tenant="default",
            request=request,
            rows=read_rows(io.BytesIO(raw), source, "prompts"),  # type: ignore[arg-type]
            idempotency_key=uuid.uuid4().hex,
            now_ms=1_700_000_000_000,
        )
        return read_job(self.store, PREFIX, "default", done.id)

    def layout(self, job: Job) -> JobLayout:
        return layout_of(job, PREFIX)

    def loop(self, name: str, engine_key: str) -> ShardLoop:
        """A renderer named `name`, as the actor makes it."""
        keeper = LeaseKeeper(
            ShardQueue(heartbeat_client(self.redis_url)),
            name,
            self.settings.lease_ms,
            self.settings.renew_ms,
            lambda: {"actor": name, "engine_key": engine_key},
        )
        maker = Maker(
            worker=name,
            device="cpu",
            torch="test",
            diffusers="test",
            fewstep="test",
            model_sha256=self.engine.model_sha256,
            accelerator_sha256=self.engine.accelerator_sha256,
        )
        return ShardLoop(
            worker=name,
            engine_key=engine_key,
            settings=self.settings,
            queue=self.queue,
            store=self.store,
            keeper=keeper,
            renderer=MendingRenderer(
                _TakingTurns(self._turn, self.engine, keeper.moved), BatchShapes("cpu")
            ),
            maker=maker,
        )

    @contextmanager
    def rendering(self, job: Job, renderers: int = 1) -> Iterator[list[ShardLoop]]:
        """Renderers at work on threads of their own; drained at the end."""
        loops = [self.loop(f"renderer-{n}", job.recipe.engine_key) for n in range(renderers)]
        threads = self._threads = [threading.Thread(target=loop.run) for loop in loops]
        for loop, thread in zip(loops, threads, strict=True):
            loop.keeper.start()
            thread.start()
        try:
            yield loops
        finally:
            for loop, thread in zip(loops, threads, strict=True):
                loop.draining.set()
                thread.join()
                loop.keeper.stop()

    def render(self, job: Job, renderers: int = 1) -> None:
        """Render the job to its end and finish it."""
        with self.rendering(job, renderers):
            # Where every thread died, what follows fails, and pytest shows what they died of.
            wait_until(lambda: self._over(job), "the last shard", 300)
        self.finish()

    def _over(self, job: Job) -> bool:
        dead = not any(thread.is_alive() for thread in self._threads)
        return dead or job.id in self.queue.finishing()

    def finish(self) -> None:
        """What the scheduler does once a job is accounted for."""
        finish_ready(self.queue, self.store, self.catalog, PREFIX)


class _TakingTurns(BatchRenderer):
    """Renderers of one engine: each has a process in the product, and a tokenizer is for one."""

    def __init__(self, turn: threading.Lock, engine: Engine, moved: Callable[[], None]) -> None:
        super().__init__(engine, moved)
        self._turn = turn

    def render(self, recipe: Recipe, images: Sequence[Image], *precision: Precision) -> Batch:
        with self._turn:
            return super().render(recipe, images, *precision)


def table_rows(out: Path) -> list[dict[str, Any]]:
    """Every row of a fetched dataset's parquet files."""
    files = [str(path) for path in sorted((out / "train").glob("*.parquet"))]
    rows: list[dict[str, Any]] = pyarrow.dataset.dataset(files).to_table().to_pylist()
    return rows
