"""The renderers on Ray: detached named actors, started, listed and drained; nothing is decided."""

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import list_named_actors

from jobs.entries import ModelEntry
from jobs.queue_values import RendererRecord
from jobs.recipe import Recipe
from jobs.settings import RendererDevice
from scheduler.leaving import Nodes
from scheduler.sharing import Sharing
from workers.actor import NAMESPACE, Renderer

log = logging.getLogger(__name__)

PREFIX = "renderer"
#: What Ray calls an actor that has no process yet, or none any more and gets another.
_WITHOUT_PROCESS = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "RESTARTING")


@dataclass(frozen=True)
class PoolActor:
    """A renderer as Ray knows it, pending and restarting ones included."""

    name: str
    #: What it was made with; a refit makes it another's (`scheduler/refits.py`).
    engine_key: str
    #: How much of a device it has.
    share: float = 1.0


class Pool:
    """Starts, lists and drains renderers. A scheduler that restarts finds the same ones here."""

    def __init__(
        self,
        max_renderers: int,
        device: RendererDevice = "auto",
        models: Mapping[str, ModelEntry] | None = None,
        most_on_a_device: int = 1,
    ) -> None:
        self._max, self._device, self._models = max_renderers, device, models or {}
        self._sharing = Sharing(most_on_a_device)

    @staticmethod
    def connect(address: str) -> None:
        """Join the cluster at `address`; raises ConnectionError where there is none."""
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.WARNING,
            configure_logging=False,
        )

    def actors(self) -> list[PoolActor]:
        """Every renderer of this namespace that is not dead."""
        found = []
        for entry in list_named_actors(all_namespaces=True):
            if entry["namespace"] == NAMESPACE and entry["name"].startswith(f"{PREFIX}-"):
                name = entry["name"]
                found.append(PoolActor(name, name.split("-")[1], self._sharing.given(name)))
        return sorted(found, key=lambda actor: actor.name)

    def slots(self) -> int:
        """How many renderers the cluster holds: one a GPU, or one a CPU where there are none.

        Where the device is given, as many as are allowed: those for which there is none yet wait,
        and that is what makes Ray's autoscaler add nodes, from none on. More, where some share.
        """
        if self._sharing.most == 1:
            return self._devices()
        return self._sharing.slots([one.name for one in self.actors()], self._devices())

    def _devices(self) -> int:
        if self._device != "auto":
            return self._max
        total = ray.cluster_resources()
        devices = total.get("GPU", 0) or total.get("CPU", 0)
        return min(self._max, int(devices))

    def hear(self, renderers: Sequence[RendererRecord]) -> None:
        """Take in what renderers say of their memory."""
        self._sharing.hear(renderers)

    def start(self, recipe: Recipe) -> str:
        """Ask Ray for one more renderer of `recipe`'s engine; its name. Returns at once."""
        name = f"{PREFIX}-{recipe.engine_key}-{uuid.uuid4().hex[:6]}"
        actor: Any = ray.remote(Renderer)
        wants = self.wants(recipe, self._gpus())
        self._sharing.note(name, wants["num_gpus"] or 1.0)
        actor.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            **wants,
            # Ray watches the process; what it was working on is the lease's concern.
            max_restarts=-1,
            max_concurrency=4,
        ).remote(name, recipe.engine_key, recipe.model_dump_json())
        log.info("renderer_started name=%s model=%s", name, recipe.model)
        return name

    def share_of(self, engine_key: str) -> float:
        """How much of a device the next renderer of an engine takes."""
        return self._sharing.share_of(engine_key)

    def refit(self, name: str, recipe: Recipe) -> bool:
        """Tell a renderer to become one of `recipe`'s engine, at once; False: it is gone."""
        try:
            actor = ray.get_actor(name, namespace=NAMESPACE)
            actor.refit.remote(recipe.engine_key, recipe.model_dump_json())
        except (ValueError, RayError) as error:
            log.info("refit_skipped name=%s error=%s", name, error)
            return False
        log.info("renderer_refitted name=%s model=%s", name, recipe.model)
        return True

    def wants(self, recipe: Recipe, gpus: int) -> dict[str, Any]:
        """What a renderer asks Ray for: a device, and what the catalog says of its model."""
        share = self._sharing.share_of(recipe.engine_key) if gpus else 0
        found: dict[str, Any] = {"num_gpus": share, "num_cpus": 0 if gpus else 1}
        entry = self._models.get(recipe.model)
        if entry is not None and entry.gpu and gpus:
            found["accelerator_type"] = entry.gpu
        if entry is not None and entry.node_memory:
            found["memory"] = entry.node_memory
        return found

    def _gpus(self) -> int:
        if self._device != "auto":
            return int(self._device == "gpu")
        return 1 if ray.cluster_resources().get("GPU", 0) else 0

    def nodes(self) -> Nodes:
        """Nodes that are about to go, or gone."""
        # There is no public function for the first; Ray's own libraries ask so too.
        told: dict[str, int] = ray._private.state.state.get_draining_nodes()
        now_ms = time.time_ns() // 1_000_000
        closing = {name: (at - now_ms) / 1e3 if at else None for name, at in told.items()}
        lost = frozenset(one["NodeID"] for one in ray.nodes() if not one["Alive"])
        return Nodes(closing, lost)

    def drain(self, name: str, seconds: float | None = None) -> None:
        """Tell a renderer to finish its shard, within `seconds` if given, and leave.

        One that still waits for a node is withdrawn. One that is gone already is no error.
        """
        try:
            if not self.withdraw(name):
                ray.get_actor(name, namespace=NAMESPACE).drain.remote(seconds)
        except (ValueError, RayError) as error:
            log.info("drain_skipped name=%s error=%s", name, error)

    def withdraw(self, name: str) -> bool:
        """Where a renderer has no process yet, or none any more, ask for it no longer.

        So no node comes for its sake. False where it has one, or is not known.
        """
        try:
            actor = ray.get_actor(name, namespace=NAMESPACE)
            known = ray._private.state.actors(actor._actor_id.hex())
            if known.get("State") not in _WITHOUT_PROCESS:
                return False
            log.info("withdrawn name=%s", name)
            ray.kill(actor, no_restart=True)
            return True
        except (ValueError, RayError):
            return False

    def kill(self, name: str) -> None:
        """End a renderer at once; its leases run out by themselves."""
        try:
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
        except (ValueError, RayError) as error:
            log.info("kill_skipped name=%s error=%s", name, error)
