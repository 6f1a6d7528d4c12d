"""What a forked process becomes: a renderer, a scheduler, or somebody who submits a job."""

import functools
import gc
import io
import logging
import os
import random
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs.catalog import load_catalog
from jobs.job import JobRequest
from jobs.recipe import Recipe
from jobs.redis_client import control_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import read_rows
from jobs.store import Store
from jobs.submit import submit_job
from scheduler.leaving import Nodes
from tests.chaos.world import RECIPE, TENANT, chaos_catalog

#: What the zygote loaded, for its children to inherit.
LOADED = SimpleNamespace(engine=None, load_engine=None)


def warm_up() -> None:
    """Load torch, diffusers, Ray's Python and the tiny engine, on one thread."""
    import ray.util  # noqa: F401

    import scheduler.loop  # noqa: F401
    import workers.actor
    import workers.mending  # noqa: F401
    from workers import engine, text  # noqa: F401
    from workers.engine import load_engine, pick_device

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    LOADED.load_engine = load_engine
    LOADED.engine = load_engine(chaos_catalog().resolve(RECIPE), pick_device(threads=1))
    # A child's collector would touch, and so copy, everything that was loaded here.
    gc.collect()
    gc.freeze()
    # pyarrow's allocator has a thread, and its own provisions for forks.
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    ours = [name for name in names if not name.startswith("jemalloc")]
    assert len(ours) == 1, f"a fork may inherit a lock that one of these holds: {ours}"


def _own() -> None:
    random.seed()
    tempfile.tempdir = None
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )


def _brisk_store() -> None:
    """A hanging store is given up after seconds, as short against the lease as it is really."""
    from botocore.config import Config

    from jobs import s3_client

    seconds = float(os.environ.get("FEWSTEP_CHAOS_READ_TIMEOUT_S", "0"))
    if seconds:
        whole = s3_client._config

        def brisk(endpoint: str | None, attempts: int) -> Any:
            return whole(endpoint, attempts).merge(Config(read_timeout=seconds))

        s3_client._config = brisk


def _quick_watchdog() -> None:
    """A device that does not answer is given up after this long instead of minutes."""
    if seconds := os.environ.get("FEWSTEP_CHAOS_STALL_S"):
        from workers import leases

        leases.STALL_S = float(seconds)
        leases.HANG_S = 2 * leases.STALL_S


def _other_weights() -> None:
    """The tiny model from another folder, as another node has it."""
    if folder := os.environ.get("FEWSTEP_CHAOS_MODEL_DIR"):
        from workers import weights

        weights.BUILTIN["model"] = Path(folder)


def renderer(order: dict[str, Any]) -> None:
    """The actor's shell as Ray runs it, without Ray: SIGTERM drains it."""
    import workers.actor
    import workers.engine
    from tests.chaos.inject import Injector
    from workers.actor import Renderer

    class Forked(Renderer):
        """It has nobody to tell that it leaves: its exit status says so."""

        def _leave(self) -> None:
            logging.getLogger("chaos").info("left")

    _own()
    _brisk_store()
    _quick_watchdog()
    _other_weights()
    workers.actor.BROKEN_S = 1.0
    injector = Injector.from_environment()
    if order.get("load"):
        workers.engine.load_engine = LOADED.load_engine
    else:
        injector.install(LOADED.engine)
        workers.engine.load_engine = lambda *_, **__: LOADED.engine
    recipe = Recipe.model_validate_json(order["recipe"])
    made = Forked(order["name"], recipe.engine_key, order["recipe"])
    _listen(made.drain)
    while True:
        signal.pause()


def _listen(leave: Callable[[], None]) -> None:
    """From now on SIGTERM, which the zygote has blocked, means to leave."""
    signal.signal(signal.SIGTERM, lambda *_: leave())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


class NoPool:
    """Ray's side of the scheduler, where the test starts the renderers itself."""

    def actors(self) -> list[Any]:
        """Nobody whom it could drain."""
        return []

    def slots(self) -> int:
        """No room for anybody."""
        return 0

    def hear(self, renderers: Any) -> None:
        """Nobody shares a device."""

    def share_of(self, engine_key: str) -> float:
        """A device each."""
        return 1.0

    def nodes(self) -> Nodes:
        """No node of Ray's."""
        return Nodes()


def scheduler(order: dict[str, Any]) -> None:
    """The scheduler's real loop over an empty pool: it reaps leases and finishes jobs."""
    from scheduler.loop import Scheduler

    _own()
    _brisk_store()
    stop = threading.Event()
    _listen(stop.set)
    settings = Settings()
    queue = ShardQueue(control_client(settings.redis_url.get_secret_value()))
    store = Store.connect(settings)
    Scheduler(settings, queue, store, load_catalog(settings.catalog), NoPool()).run(stop)  # type: ignore[arg-type]


def submitter(order: dict[str, Any]) -> None:
    """Submits a job as the API does; with `die`, it is killed between the store and the queue."""
    _own()
    settings = Settings()
    queue = ShardQueue(control_client(settings.redis_url.get_secret_value()))
    if order.get("die"):
        queue.submit = functools.partial(_die)  # type: ignore[method-assign, assignment]
    submit_job(
        Store.connect(settings),
        queue,
        chaos_catalog(),
        prefix=settings.s3_prefix,
        tenant=TENANT,
        request=JobRequest.model_validate_json(order["request"]),
        rows=read_rows(io.BytesIO(order["prompts"].encode()), "text", "prompts"),
        idempotency_key=order["key"],
        now_ms=order["now_ms"],
    )


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


ROLES: dict[str, Callable[[dict[str, Any]], None]] = {
    "renderer": renderer,
    "scheduler": scheduler,
    "submitter": submitter,
}
