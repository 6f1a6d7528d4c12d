"""The renderers on Ray: detached named actors, started, listed and drained; nothing is decided."""

import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import list_named_actors

from jobs.recipe import Recipe
from jobs.settings import RendererDevice
from scheduler.leaving import Nodes
from workers.actor import NAMESPACE, Renderer

log = logging.getLogger(__name__)

PREFIX = "renderer"
#: What Ray calls an actor that has no process yet, or none any more and gets another.
_WITHOUT_PROCESS = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "RESTARTING")


@dataclass(frozen=True)
class PoolActor:
    """A renderer as Ray knows it, pending and restarting ones included."""

    name: str
    engine_key: str


class Pool:
    """Starts, lists and drains renderers. A scheduler that restarts finds the same ones here."""

    def __init__(self, max_renderers: int, device: RendererDevice = "auto") -> None:
        self._max, self._device = max_renderers, device

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
                found.append(PoolActor(entry["name"], entry["name"].split("-")[1]))
        return sorted(found, key=lambda actor: actor.name)

    def slots(self) -> int:
        """How many renderers the cluster holds: one a GPU, or one a CPU where there are none.

        Where the device is given, as many as are allowed: those for which there is none yet wait,
        and that is what makes Ray's autoscaler add nodes, from none on.
        """
        if self._device != "auto":
            return self._max
        total = ray.cluster_resources()
        devices = total.get("GPU", 0) or total.get("CPU", 0)
        return min(self._max, int(devices))

    def start(self, recipe: Recipe) -> str:
        """Ask Ray for one more renderer of `recipe`'s engine; its name. Returns at once."""
        name = f"{PREFIX}-{recipe.engine_key}-{uuid.uuid4().hex[:6]}"
        gpus = self._gpus()
        actor: Any = ray.remote(Renderer)
        actor.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            num_gpus=gpus,
            num_cpus=0 if gpus else 1,
            # Ray watches the process; what it was working on is the lease's concern.
            max_restarts=-1,
            max_concurrency=4,
        ).remote(name, recipe.engine_key, recipe.model_dump_json())
        log.info("renderer_started name=%s model=%s", name, recipe.model)
        return name

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

        One that still waits for a node is withdrawn, so that none comes for its sake. One that is
        gone already is no error.
        """
        try:
            actor = ray.get_actor(name, namespace=NAMESPACE)
            known = ray._private.state.actors(actor._actor_id.hex())
            if known.get("State") in _WITHOUT_PROCESS:
                log.info("withdrawn name=%s", name)
                ray.kill(actor, no_restart=True)
            else:
                actor.drain.remote(seconds)
        except (ValueError, RayError) as error:
            log.info("drain_skipped name=%s error=%s", name, error)

    def kill(self, name: str) -> None:
        """End a renderer at once; its leases run out by themselves."""
        try:
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
        except (ValueError, RayError) as error:
            log.info("kill_skipped name=%s error=%s", name, error)
