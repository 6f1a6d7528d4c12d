"""A site whose renderers are Ray's: nodes on loopback and our scheduler, walled off."""

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import ray

from fewstep.local_ray import OBJECT_STORE_BYTES, free_ports, ray_variables
from jobs.queue_values import RendererRecord
from scheduler.pool import Pool
from tests.chaos.examine import Undisturbed, read_dataset
from tests.chaos.one_site import Site
from tests.chaos.processes import Child
from tests.s3_servers import ACCESS, SECRET
from tests.servers import wait_until

#: Half as short as where processes are forked: Ray and torch share two cores here.
LEASE_MS, RENEW_MS = 6_000, 500
#: Enough to be at it for seconds.
IMAGES = 320
#: Its short path is for Ray's sockets; a file system of the namespaces lies there.
RAY_FOLDER = Path("/mnt/ray")
#: What Ray reads from the environment when it is imported.
RAY = {
    **ray_variables(RAY_FOLDER),
    # Several nodes; nothing but loopback is here to listen on.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
}
TRIES = 3
_PORTS = (
    *("--node-manager-port", "--object-manager-port", "--dashboard-agent-listen-port"),
    *("--dashboard-agent-grpc-port", "--runtime-env-agent-port", "--metrics-export-port"),
)


class Nobody:
    """In the zygote's place: nothing is forked here."""

    def living(self) -> list[Child]:
        """Nobody."""
        return []


@dataclass
class Node:
    """A node: `ray start --block`, and what it started."""

    process: "subprocess.Popen[bytes]"
    #: By which Ray's own list of nodes tells it from others.
    port: int = 0

    def tree(self) -> list[psutil.Process]:
        """Its processes, without those that ended: the head's servers, raylet, renderers."""
        parent = psutil.Process(self.process.pid)
        return [one for one in parent.children(recursive=True) if one.status() != "zombie"]

    def named(self, *names: str) -> list[psutil.Process]:
        """Its servers of these names."""
        return [one for one in self.tree() if one.name() in names]

    def holds(self, pid: int) -> bool:
        """Whether that process runs on it."""
        return pid in [one.pid for one in self.tree()]

    def kill(self, *names: str) -> None:
        """SIGKILL to its servers of these names; what hangs on them goes by itself."""
        found = self.named(*names)
        assert found, f"no {names} on this node"
        for one in found:
            one.kill()
        self.process.wait(60)

    def end(self) -> None:
        """All of it, at once."""
        for one in (*self.tree(), psutil.Process(self.process.pid)):
            one.kill()
        self.process.wait()


@dataclass
class RaySite(Site):
    """Redis and S3 as ever; `begin` brings up Ray, the scheduler and renderers, and a job."""

    lease_ms: int = LEASE_MS
    nodes: list[Node] = field(default_factory=list)
    placing: "subprocess.Popen[bytes] | None" = None
    pictures: Undisturbed = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.port = free_ports(1)[0]
        RAY_FOLDER.mkdir()
        Path(RAY["RAY_AUTH_TOKEN_PATH"]).write_text(secrets.token_hex(32))
        os.environ.update(
            FEWSTEP_REDIS_URL=f"redis://127.0.0.1:{self.redis.port}/0",
            FEWSTEP_S3_ENDPOINT=self.s3.url,
            FEWSTEP_S3_BUCKET=self.bucket,
            FEWSTEP_S3_ACCESS_KEY=ACCESS,
            FEWSTEP_S3_SECRET_KEY=SECRET,
            FEWSTEP_RAY_ADDRESS=f"127.0.0.1:{self.port}",
            FEWSTEP_LEASE_MS=str(LEASE_MS),
            FEWSTEP_RENEW_MS=str(RENEW_MS),
            FEWSTEP_CACHE=str(self.folder / "cache"),
            TMPDIR=str(self.tmp("all")),
            OMP_NUM_THREADS="1",
        )
        self.tmp("all").mkdir(parents=True)

    # ---- Ray ----

    def node(self, cpus: int, *, head: bool = False) -> Node:
        """Start a node with room for so many renderers, and wait until it is part of the cluster.

        Ray gives one up that is not there in half a minute, as happens on a busy machine.
        """
        for _ in range(TRIES):
            log = self.folder / f"ray-{time.monotonic_ns()}.log"
            made = _start_node(self.port, cpus, head, log)
            wait_until(lambda made=made, log=log: _is_up(made, log), "a node of Ray", 180)
            if made.process.poll() is None:
                self.nodes.append(made)
                return made
        raise AssertionError(f"Ray gave a node up {TRIES} times, see {log}")

    def ray_scheduler(self) -> None:
        """Start our scheduler, with Ray's pool."""
        with (self.folder / "scheduler.log").open("ab") as log:
            self.placing = subprocess.Popen(
                [sys.executable, "-m", "scheduler"], stdout=log, stderr=log
            )

    def kill_scheduler(self) -> None:
        """SIGKILL."""
        assert self.placing is not None
        self.placing.kill()
        self.placing.wait()

    def node_id(self, node: Node) -> str:
        """The name by which Ray knows it."""
        Pool.connect(f"127.0.0.1:{self.port}")
        try:
            known = {one["NodeManagerPort"]: one["NodeID"] for one in ray.nodes()}
        finally:
            ray.shutdown()
        return str(known[node.port])

    # ---- renderers and jobs ----

    def begin(self, renderers: int) -> None:
        """A job that nothing happens to, until its renderers are there, and another one begun."""
        self.ray_scheduler()
        self.submit_many()
        wait_until(lambda: len(self.loaded()) == renderers, "the renderers", 240)
        self.wait_for_end()
        self.pictures = read_dataset(self.store, self.layout()).pictures
        self.jobs.clear()
        self.submit_many()
        self.wait_for_progress()

    def submit_many(self) -> None:
        """Submit a job of many small shards."""
        self.submit(IMAGES)

    def loaded(self) -> list[RendererRecord]:
        """Renderers that have their engine."""
        return [one for one in self.queue.renderers() if one.info.get("load")]

    def busy(self) -> RendererRecord:
        """A renderer that holds a lease."""
        found: list[RendererRecord] = []

        def any_busy() -> bool:
            holders = {lease.worker for lease in self.queue.leases()}
            found[:] = [one for one in self.loaded() if one.worker in holders]
            return bool(found)

        wait_until(any_busy, "a renderer at work", 120)
        return found[0]

    def node_of(self, renderer: RendererRecord) -> Node:
        """The node on which it runs."""
        return next(one for one in self.nodes if one.holds(pid_of(renderer)))

    # ---- the end ----

    def leave(self) -> list[str]:
        """Let everyone go; what is wrong with how they went."""
        gone = Child("renderers", {}, code=0)
        gone.fallen += [pid_of(one) for one in self.queue.renderers() if is_dead(one)]
        self.children["renderers"] = gone
        assert self.placing is not None
        self.placing.send_signal(signal.SIGTERM)
        code = self.placing.wait(60)
        Pool.connect(f"127.0.0.1:{self.port}")
        try:
            pool = Pool(8)
            there = {one.info["actor"] for one in self.loaded() if not is_dead(one)}
            for actor in pool.actors():
                # One for which no node is left hears nothing.
                (pool.drain if actor.name in there else pool.kill)(actor.name)
            wait_until(lambda: not pool.actors(), "every actor to leave", 120)
        finally:
            ray.shutdown()
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.terminate()
                node.process.wait(60)
        return [f"the scheduler ended with {code}"] if code else []

    def left_processes(self) -> list[str]:
        """What is still there of Ray and its actors, minutes after they were told to go.

        Where a raylet was killed its agents go by themselves, about a minute later.
        """
        with suppress(AssertionError):
            wait_until(lambda: not _of_ray(), "Ray's processes", 180)
        return [f"process {name}" for name in _of_ray()]

    def close(self) -> None:
        """End everything, in whatever state it is."""
        self.children.clear()
        if self.placing is not None and self.placing.poll() is None:
            self.kill_scheduler()
        for node in self.nodes:
            if node.process.poll() is None:
                node.end()
        super().close()


def _start_node(port: int, cpus: int, head: bool, log: Path) -> Node:
    ports = free_ports(len(_PORTS))
    command = [
        *(sys.executable, "-P", "-c", "from ray.scripts.scripts import main; main()"),
        *("start", "--block", "--disable-usage-stats", "--include-log-monitor=false"),
        *(["--head", f"--port={port}", f"--temp-dir={RAY_FOLDER}"] if head else []),
        *(["--include-dashboard=false", "--no-monitor"] if head else []),
        *([] if head else [f"--address=127.0.0.1:{port}"]),
        "--node-ip-address=127.0.0.1",
        *(f"{flag}={free}" for flag, free in zip(_PORTS, ports, strict=True)),
        *(f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
        *("--log-style=record", "--log-color=false"),
    ]
    with log.open("wb") as output:
        return Node(subprocess.Popen(command, stdout=output, stderr=output), ports[0])


def _is_up(node: Node, log: Path) -> bool:
    return node.process.poll() is not None or "Ray runtime started" in log.read_text()


def _of_ray() -> list[str]:
    names = ("raylet", "gcs_server", "ray::")
    return [
        one.info["name"]
        for one in psutil.process_iter(["name", "status"])
        if one.info["name"].startswith(names) and one.info["status"] != "zombie"
    ]


def pid_of(renderer: RendererRecord) -> int:
    """Its process."""
    return int(renderer.info["pid"])


def is_dead(renderer: RendererRecord) -> bool:
    pid = pid_of(renderer)
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
