"""The Ray actor around the shard loop: it holds an engine, becomes another, or leaves, as told."""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping

import psutil

from jobs.errors import BadConfiguration, FewstepError, Unreachable
from jobs.logs import start_logging
from jobs.recipe import Recipe
from jobs.redis_client import control_client, heartbeat_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from workers.leases import LeaseKeeper, end_predecessor
from workers.loading import Parts, assigned_share, drop_engine, load_parts, ray_node
from workers.orders import Held, Orders
from workers.shard_loop import ShardLoop
from workers.weight_files import forbid_remote_code

log = logging.getLogger("workers.actor")

NAMESPACE = "fewstep"


#: A renderer with bad weights says so for this long, then makes room for another try.
BROKEN_S = 60.0
#: Between two tries to reach a store that is away.
AWAY_S = 5.0


class Renderer:
    """Runs a shard loop on a thread from birth, so that Ray's restart after a death is enough.

    Settings come from this process's environment: no secret passes through Ray. `drain` ends it
    after the unit in hand; Ray is then told not to restart it. `refit` ends its engine alone, and
    it goes on with another, as another worker. Should it die, Ray starts it with what it was made
    with: it is then a renderer of its first engine again, and its heartbeat says so.
    """

    def __init__(self, name: str, engine_key: str, recipe_json: str) -> None:
        self._name = name
        self._orders = Orders(engine_key, recipe_json)
        self._engine_key = engine_key
        self._loop: ShardLoop | None = None
        self._state = "starting"
        self._trouble = ""
        #: What it does above all else: "compiling", or nothing of the kind.
        self._busy = ""
        self._device = ""
        self._parts: Parts | None = None
        #: Of its engine, for people.
        self._title = ""
        #: Since when it is on its way to its engine, and the seconds that this took.
        self._begun, self._ready_s, self._refitted = time.monotonic(), "", False
        self._ray_node, self._share = ray_node(), assigned_share()
        #: When it last said how busy it is, and the seconds it had been busy then.
        self._looked = (time.monotonic(), 0.0)
        threading.Thread(target=self._live, name="renderer", daemon=True).start()

    def ping(self) -> str:
        """What the renderer says of itself, as JSON."""
        return json.dumps(dict(self._about()))

    def drain(self, seconds: float | None = None) -> None:
        """Finish the unit in hand, give back the next one, and leave.

        Where its node has only so many seconds, a unit that will not be ready by then is given
        back at once.
        """
        self._orders.leave(seconds)

    def refit(self, engine_key: str, recipe_json: str) -> None:
        """Finish the unit in hand, give back the next one, and go on with another engine.

        For an engine with the same base: libraries, device and place are kept, nets are not.
        """
        self._orders.refit(engine_key, recipe_json)

    def _about(self) -> Mapping[str, str]:
        loop = self._loop
        return {
            "actor": self._name,
            "engine_key": self._engine_key,
            "state": self._busy or (loop.state if loop else self._state),
            "error": loop.trouble if loop else self._trouble,
            "node": socket.gethostname(),
            "ray_node": self._ray_node,
            "pid": str(os.getpid()),
            "device": self._device,
            "load": self._parts.load_times.model_dump_json() if self._parts else "",
            "ready_s": self._ready_s,
            "refit": "1" if self._refitted else "",
            "becomes": self._orders.becomes,
            "images": str(loop.images_done if loop else 0),
            "engine": self._title,
            "busy": self._busy_share(),
            "share": str(self._share or ""),
            "peak": self._peak(),
            "device_memory": str(self._parts.device_memory) if self._parts else "",
            "memory": str(psutil.Process().memory_info().rss),
            "draining": "1" if self._orders.leaving.is_set() else "",
        }

    def _peak(self) -> str:
        """The most memory its engine held, in bytes; "" before it has rendered."""
        if self._parts is None or self._loop is None or not self._loop.busy_s:
            return ""
        return str(self._parts.renderer.memory_bytes)

    def _busy_share(self) -> str:
        """How much of the time since this was last asked it rendered, 0 to 1; "" before it can."""
        loop, now = self._loop, time.monotonic()
        if loop is None:
            return ""
        (before, busy), self._looked = self._looked, (now, loop.busy_s)
        return f"{min(1.0, (loop.busy_s - busy) / max(1e-3, now - before)):.3f}"

    def _live(self) -> None:
        """The whole life of this process: whatever happens here, it ends with it."""
        status = 1
        try:
            self._run()
            self._leave()
            status = 0
        except FewstepError as error:
            log.error("renderer_stopped name=%s error=%s", self._name, error)
            if isinstance(error, BadConfiguration):
                # Redis or the store refuses us: Ray's restarts would ask again without a pause.
                self._orders.leaving.wait(BROKEN_S)
        except Exception:
            log.exception("renderer_died name=%s", self._name)
        finally:
            os._exit(status)

    def _run(self) -> None:
        settings = Settings()
        start_logging(settings.log)
        forbid_remote_code(hub_access=settings.hub_access)
        redis_url = settings.redis_url.get_secret_value()
        beats = ShardQueue(heartbeat_client(redis_url))
        queue = ShardQueue(control_client(redis_url))
        while (held := self._orders.take()) is not None:
            self._hold(held, settings, queue, beats)

    def _hold(self, held: Held, settings: Settings, queue: ShardQueue, beats: ShardQueue) -> None:
        """Be a renderer of this engine until it ends, under a name that no other life had."""
        now = time.monotonic()
        self._loop, self._parts, self._engine_key = None, None, held.engine_key
        self._state, self._ready_s, self._refitted = "loading", "", not held.first
        self._begun, self._looked = (self._begun if held.first else now), (now, 0.0)
        worker = f"{self._name}.{uuid.uuid4().hex[:6]}"
        keeper = LeaseKeeper(
            beats,
            worker,
            settings.lease_ms,
            settings.renew_ms,
            self._about,
            on_hang=self._hang,
        )
        keeper.start()
        try:
            # What an earlier engine of this very process could not give back killed nobody.
            end_predecessor(queue, self._name, worker, crashed=held.first)
            loop = self._load(held, settings, worker, queue, keeper)
            if loop is not None:
                self._loop = loop
                # Its device is known from its first unit on: that is how a job's speed is noted.
                keeper.tell()
                loop.run()
                loop.store.close()
        finally:
            keeper.stop()

    def _hang(self) -> None:
        """Called by the heartbeat: the device has not moved for minutes, and Ray cannot see it."""
        log.error("renderer_hangs name=%s", self._name)
        os._exit(1)

    def _load(
        self,
        held: Held,
        settings: Settings,
        worker: str,
        queue: ShardQueue,
        keeper: LeaseKeeper,
    ) -> ShardLoop | None:
        """The loop with its engine; None where it cannot be had.

        Bad weights or keys burn no unit and no restart: the renderer says what is wrong, waits a
        while, and leaves, so that the next one tries again.
        """
        try:
            if not held.first:
                drop_engine(settings)
            self._parts = parts = load_parts(held.recipe_json, settings, keeper, self._say)
            self._ready_s = f"{time.monotonic() - self._begun:.3f}"
            store = self._reach_store(settings, held)
        except Exception as error:
            log.exception("renderer_broken name=%s", self._name)
            self._state, self._trouble = "broken", f"{error}"[:500] or type(error).__name__
            keeper.beat()
            held.ending.wait(BROKEN_S)
            self._orders.leave()
            return None
        self._device = parts.device
        self._title = Recipe.model_validate_json(held.recipe_json).title
        if store is None:
            return None
        return ShardLoop(
            worker=worker,
            engine_key=held.engine_key,
            settings=settings,
            queue=queue,
            store=store,
            keeper=keeper,
            renderer=parts.renderer,
            maker=parts.maker(worker),
            draining=held.ending,
        )

    def _say(self, busy: str) -> None:
        self._busy = busy

    def _reach_store(self, settings: Settings, held: Held) -> Store | None:
        """The store, however long it is away; None where its engine's end was told meanwhile."""
        while not held.ending.is_set():
            try:
                return Store.connect(settings)
            except Unreachable as error:
                log.warning("store_away name=%s error=%s", self._name, error)
                self._state = "waiting for the store"
                held.ending.wait(AWAY_S)
        return None

    def _leave(self) -> None:
        """Tell Ray that this end was meant; otherwise it would start the renderer again."""
        import ray

        log.info("renderer_left name=%s", self._name)
        ray.kill(ray.get_actor(self._name, namespace=NAMESPACE), no_restart=True)
