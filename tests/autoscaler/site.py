"""A site whose nodes come and go by Ray's own autoscaler, from none on."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
from ray._raylet import GcsClient
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID as HEAD
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from fewstep.local_ray import OBJECT_STORE_BYTES, free_ports
from jobs.catalog import Catalog
from jobs.queue_values import RendererRecord
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue
from tests.autoscaler.pretended import PACE
from tests.autoscaler.provider import NOTES
from tests.autoscaler.removals import Stays
from tests.chaos.ray_site import RAY_FOLDER, Node, RaySite, pid_of
from tests.servers import wait_until

PREEMPTION = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
#: Nodes at most, of one GPU and one renderer each.
NODES = 3
#: As in production, so that nothing is saved by a lease that runs out.
LEASE_MS, RENEW_MS = 60_000, 15_000
#: A kind of GPU by Ray's name for it, and memory of a node that has one.
KIND, MEMORY = "A100", 2_000_000_000
#: How long the last renderer of an engine stays without work, and then its node.
IDLE_MS, NODE_IDLE_S = 3_000, 5.0
_PORTS = (
    *("--node-manager-port", "--object-manager-port", "--dashboard-agent-listen-port"),
    *("--dashboard-agent-grpc-port", "--runtime-env-agent-port", "--metrics-export-port"),
)
_COMMANDS = (
    *("initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)


@dataclass
class AutoscaledSite(RaySite):
    """Redis, S3, a head without room for renderers, Ray's autoscaler, and our scheduler."""

    lease_ms: int = LEASE_MS
    pace_s: float = 0.25
    stays: Stays = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stays = Stays(ShardQueue(control_client(f"redis://127.0.0.1:{self.redis.port}/0")))
        self.stays.start()
        self.notes = self.folder / "nodes.jsonl"
        self.notes.touch()
        self.catalog = self._with_a_choosy_model()
        os.environ.update(
            {
                "RAY_FAKE_CLUSTER": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_enable_autoscaler_v2": "1",
                # Nodes are joined on the address that Ray finds by itself: loopback, with this.
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                "FEWSTEP_LEASE_MS": str(LEASE_MS),
                "FEWSTEP_RENEW_MS": str(RENEW_MS),
                "FEWSTEP_RENDERER_DEVICE": "gpu",
                "FEWSTEP_CATALOG": str(self.folder / "catalog.toml"),
                "FEWSTEP_MAX_RENDERERS": str(NODES),
                "FEWSTEP_IDLE_MS": str(IDLE_MS),
                NOTES: str(self.notes),
                PACE: str(self.pace_s),
            }
        )

    def _with_a_choosy_model(self) -> Catalog:
        """The tiny model without its accelerator: it wants a GPU of one kind, and memory."""
        tiny = self.catalog.models["tiny"]
        more = {"gpu": KIND, "node_memory": MEMORY // 2, "accelerator": None}
        choosy = tiny.model_copy(update=more)
        lines = ["[models.choosy]"]
        lines += [
            f"{name} = {json.dumps(value)}"
            for name, value in choosy.model_dump(mode="json", exclude_defaults=True).items()
        ]
        (self.folder / "catalog.toml").write_text("\n".join(lines))
        return self.catalog.model_copy(update={"models": {**self.catalog.models, "choosy": choosy}})

    def ray_head(self) -> None:
        """Start the head and the autoscaler with it."""
        config = self.folder / "autoscaling.yaml"
        config.write_text(json.dumps(autoscaling(self.port)))
        log = self.folder / "ray-head.log"
        command = [
            *(sys.executable, "-P", "-c", "from ray.scripts.scripts import main; main()"),
            *("start", "--head", "--block", "--disable-usage-stats"),
            *("--include-dashboard=false", "--include-log-monitor=false"),
            *(f"--port={self.port}", f"--temp-dir={RAY_FOLDER}", "--node-ip-address=127.0.0.1"),
            *("--num-cpus=0", "--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"),
            *(f"{flag}={port}" for flag, port in zip(_PORTS, free_ports(len(_PORTS)), strict=True)),
            f"--autoscaling-config={config}",
            *("--log-style=record", "--log-color=false"),
        ]
        head = dict.fromkeys(("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING"), HEAD)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **head}
            )
        self.nodes.append(Node(process))
        wait_until(lambda: "Ray runtime started" in log.read_text(), "the head", 180)

    def ray_scheduler(self) -> None:
        """Start our scheduler, whose renderers do not mind that there is no GPU."""
        with (self.folder / "scheduler.log").open("ab") as log:
            self.placing = subprocess.Popen(
                [sys.executable, "-m", "tests.autoscaler.pretended"], stdout=log, stderr=log
            )

    def settled(self) -> bool:
        """Whether Ray has no node, and none on its way."""
        said = get_cluster_status(f"127.0.0.1:{self.port}")
        workers = [one for one in said.active_nodes + said.idle_nodes if one.node_id != HEAD]
        return not (workers or said.pending_nodes or said.pending_launches)

    def give_notice(self, node_id: str, seconds: int) -> None:
        """Tell Ray that a node goes, as a cloud's notice would: what `ray drain-node` does."""
        accepted, why = GcsClient(address=f"127.0.0.1:{self.port}").drain_node(
            node_id, PREEMPTION, "a notice", time.time_ns() // 1_000_000 + seconds * 1000
        )
        assert accepted, why

    def lose(self, renderer: RendererRecord) -> None:
        """All processes of a renderer's node at once, as when its machine loses power."""
        raylet = psutil.Process(pid_of(renderer)).parent()
        assert raylet is not None
        assert raylet.name() == "raylet", raylet
        for process in (raylet, *raylet.children(recursive=True)):
            process.kill()

    def close(self) -> None:
        """End everything, in whatever state it is."""
        self.stays.stop()
        super().close()


def autoscaling(port: int) -> dict[str, Any]:
    """What Ray's autoscaler is told: nodes of one GPU, none to begin with."""
    return {
        "cluster_name": "fewstep",
        "max_workers": NODES,
        "idle_timeout_minutes": NODE_IDLE_S / 60,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",
            "module": "tests.autoscaler.provider.NotedProvider",
            "gcs_address": f"127.0.0.1:{port}",
            "head_node_id": HEAD,
            "launch_multiple": True,
        },
        # Ray's reader of this file wants these to be there.
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{name: [] for name in _COMMANDS},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {
                "resources": {"CPU": 0},
                "node_config": {},
                "max_workers": 0,
            },
            "plain": _node_type({}),
            "choice": _node_type({f"accelerator_type:{KIND}": 1, "memory": MEMORY}),
        },
    }


def _node_type(more: dict[str, int]) -> dict[str, Any]:
    own = {"CPU": 1, "GPU": 1, "object_store_memory": OBJECT_STORE_BYTES}
    return {
        "resources": {**own, **more},
        "node_config": {},
        "min_workers": 0,
        "max_workers": NODES,
    }
