"""The Ray actor around the shard loop: it holds one engine, and leaves when it is told to."""

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

from jobs.errors import FewstepError
from jobs.recipe import Recipe
from jobs.records import Maker
from jobs.redis_client import control_client, heartbeat_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from workers.leases import LeaseKeeper
from workers.shard_loop import ShardLoop

log = logging.getLogger("workers.actor")

NAMESPACE = "fewstep"


class Renderer:
    """Runs a shard loop on a thread from birth, so that Ray's restart after a death is enough.

    Settings come from this process's environment: no secret passes through Ray. `drain` ends it
    after the shard in hand; Ray is then told not to restart it.
    """

    def __init__(self, name: str, recipe_json: str) -> None:
        self._name = name
        self._recipe = Recipe.model_validate_json(recipe_json)
        self._settings = Settings()
        self._draining = threading.Event()
        self._loop: ShardLoop | None = None
        self._state = "starting"
        self._trouble = ""
        self._device = ""
        threading.Thread(target=self._live, name="renderer", daemon=True).start()

    def ping(self) -> str:
        """What the renderer says of itself, as JSON."""
        return json.dumps(dict(self._about()))

    def drain(self) -> None:
        """Finish the shard in hand, give back the next one, and leave."""
        self._draining.set()

    def _about(self) -> Mapping[str, str]:
        loop = self._loop
        return {
            "actor": self._name,
            "engine_key": self._recipe.engine_key,
            "model": self._recipe.model,
            "state": loop.state if loop and not self._trouble else self._state,
            "error": self._trouble,
            "node": socket.gethostname(),
            "pid": str(os.getpid()),
            "device": self._device,
            "images": str(loop.images_done if loop else 0),
            "draining": "1" if self._draining.is_set() else "",
        }

    def _live(self) -> None:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        status = 0
        try:
            self._run()
        except FewstepError as error:
            log.error("renderer_stopped name=%s error=%s", self._name, error)
            status = 1
        except Exception:
            # The last frame of this process: whatever came here ends it, and is in its log.
            log.exception("renderer_died name=%s", self._name)
            status = 1
        if status == 0:
            self._leave()
        os._exit(status)

    def _run(self) -> None:
        settings = self._settings
        worker = f"{self._name}.{uuid.uuid4().hex[:6]}"
        redis_url = settings.redis_url.get_secret_value()
        keeper = LeaseKeeper(
            ShardQueue(heartbeat_client(redis_url)),
            worker,
            settings.lease_ms,
            settings.renew_ms,
            self._about,
        )
        keeper.start()
        try:
            queue = ShardQueue(control_client(redis_url))
            end_predecessor(queue, self._name, worker)
            loop = self._load(worker, queue, keeper)
            if loop is not None:
                self._loop = loop
                loop.run()
        finally:
            keeper.stop()

    def _load(self, worker: str, queue: ShardQueue, keeper: LeaseKeeper) -> ShardLoop | None:
        """The loop with its engine; None where the weights are bad and the renderer was drained.

        Bad weights burn no shard and no restart: the renderer says so and waits to be told.
        """
        from workers.engine import load_engine, pick_device
        from workers.render import BatchRenderer
        from workers.shard_render import ShardRenderer

        self._state = "loading"
        settings = self._settings
        device = pick_device(settings.threads)
        self._device = _device_name(device.type)
        try:
            engine = load_engine(self._recipe, device, hub_access=settings.hub_access)
            store = Store.connect(settings)
        except FewstepError as error:
            log.error("renderer_broken name=%s error=%s", self._name, error)
            self._state, self._trouble = "broken", str(error)
            keeper.beat()
            self._draining.wait()
            return None
        log.info("engine_loaded key=%s ms=%.0f", engine.engine_key, engine.load_ms)
        maker = Maker(
            worker=worker,
            device=self._device,
            torch=metadata.version("torch"),
            diffusers=metadata.version("diffusers"),
            fewstep=metadata.version("fewstep"),
            model_sha256=engine.model_sha256,
            accelerator_sha256=engine.accelerator_sha256,
            styles=engine.styles,
        )
        encoders = ThreadPoolExecutor(max(1, settings.threads), "encode")
        return ShardLoop(
            worker=worker,
            engine_key=self._recipe.engine_key,
            settings=settings,
            queue=queue,
            store=store,
            keeper=keeper,
            renderer=ShardRenderer(BatchRenderer(engine), encoders, engine.load_ms),
            maker=maker,
            draining=self._draining,
        )

    def _leave(self) -> None:
        """Tell Ray that this end was meant; otherwise it would start the renderer again."""
        import ray

        log.info("renderer_left name=%s", self._name)
        ray.kill(ray.get_actor(self._name, namespace=NAMESPACE), no_restart=True)


def end_predecessor(queue: ShardQueue, name: str, worker: str) -> int:
    """End the leases of this actor's earlier processes, which Ray has seen die; how many.

    Waiting for them to run out would be as safe and take up to a lease. Should one live after
    all (a node that Ray lost sight of), its token is a fence: it commits nothing any more.
    """
    ended = 0
    for lease in queue.leases():
        if lease.worker.rpartition(".")[0] == name and lease.worker != worker:
            queue.fail(
                lease.job_id,
                lease.unit,
                lease.token,
                "crash",
                "its renderer's process died",
                progress=lease.progress,
            )
            ended += 1
    return ended


def _device_name(kind: str) -> str:
    if kind == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "cpu"
