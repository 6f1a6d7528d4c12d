"""Faults of Ray: a node killed or frozen, the head killed, a renderer killed, scaling down."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from signal import SIGCONT, SIGSTOP
from typing import cast

from tests.chaos.fault import Fault
from tests.chaos.machine import root_missing
from tests.chaos.one_site import Site
from tests.chaos.ray_site import IMAGES, LEASE_MS, Node, RaySite, is_dead, pid_of
from tests.chaos.seats import NEW, OLD
from tests.s3_servers import STRICT, WEAK
from tests.servers import wait_until


def namespaces_missing() -> str:
    """Why a Ray of its own cannot be walled off from every other one."""
    if reason := root_missing():
        return reason
    missing = [name for name in ("unshare", "ip") if not shutil.which(name)]
    return f"needs {' and '.join(missing)} (Debian: util-linux, iproute2)" if missing else ""


def renderer_killed(site: Site) -> None:
    """Ray starts it again, and it ends its predecessor's leases."""
    ray = _two_nodes(site)
    one = ray.busy()
    since = time.monotonic()
    os.kill(pid_of(one), 9)
    wait_until(lambda: is_dead(one), "the renderer's end", 60)
    site.recovery.after_death(site.recovery.held_by(one.info["actor"]), since)


def raylet_killed(site: Site) -> None:
    """A node is lost with its renderer; the other node goes on."""
    ray = _two_nodes(site)
    one = ray.busy()
    node, since = ray.node_of(one), time.monotonic()
    node.kill("raylet")
    wait_until(lambda: is_dead(one), "the renderer's end", 60)
    site.recovery.after_death(site.recovery.held_by(one.info["actor"]), since)


def node_frozen(site: Site) -> None:
    """Every process of a node stands still, until its units are another's and done."""
    ray = _two_nodes(site)
    one = ray.busy()
    processes = ray.node_of(one).tree()
    for process in processes:
        process.send_signal(SIGSTOP)
    struck, since = site.recovery.held_by(one.info["actor"]), time.monotonic()
    site.recovery.after_death(struck, since)
    for lease in struck:
        wait_until(lambda lease=lease: site.recovery.settled(lease.job_id, lease.unit), "it", 180)
    for process in processes:
        process.send_signal(SIGCONT)


def head_killed(site: Site) -> None:
    """The only machine's Ray dies, renderers with it; whoever keeps it up starts all again."""
    ray = cast(RaySite, site)
    head = ray.node(2, head=True)
    ray.begin(2)
    with site.recovery.outage(site.progress, IMAGES):
        before = ray.loaded()
        head.kill("gcs_server", "raylet")
        wait_until(lambda: all(map(is_dead, before)), "the renderers' end", 120)
        ray.kill_scheduler()
        ray.node(2, head=True)
        ray.ray_scheduler()


def scaled_down(site: Site) -> None:
    """An autoscaler asks for a node: refused while it is busy, granted once it was drained."""
    ray = cast(RaySite, site)
    os.environ["FEWSTEP_IDLE_MS"] = "2000"
    ray = _two_nodes(site)
    node = ray.node_of(ray.busy())
    node_id = ray.node_id(node)
    with site.recovery.outage(site.progress, IMAGES):
        assert not _leaves(ray, node_id), "a node at work was taken away"
    site.wait_for_end()
    machine = node.tree()
    wait_until(lambda: _leaves(ray, node_id), "the idle node to be free", 120)
    node.process.terminate()
    node.process.wait(60)
    # Ray's agents outlive their raylet by a minute or so; here the machine is taken away.
    for process in machine:
        if process.is_running() and "Renderer" not in process.name():
            process.kill()


def _two_nodes(site: Site) -> RaySite:
    """A head without room for a renderer, and two nodes with room for one each, at work."""
    ray = cast(RaySite, site)
    ray.node(0, head=True)
    nodes: list[Node] = [ray.node(1), ray.node(1)]
    ray.begin(len(nodes))
    return ray


def _leaves(ray: RaySite, node_id: str) -> bool:
    """Ask Ray as its autoscaler does; whether it lets go of the node."""
    command = [
        *(sys.executable, "-P", "-c", "from ray.scripts.scripts import main; main()", "drain-node"),
        *("--address", f"127.0.0.1:{ray.port}", "--node-id", node_id),
        *("--reason", "DRAIN_NODE_REASON_IDLE_TERMINATION", "--reason-message", "scale-down"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return True
    assert "not accepted" in done.stderr, done.stderr
    return False


def _fault(
    row: str, name: str, how: str, strike: Callable[[Site], None], servers: tuple[str, str]
) -> Fault:
    """One pair of servers: what Ray does has little to do with them, and takes minutes."""
    redis, store = servers
    return Fault(
        row,
        name,
        how,
        strike,
        redis=(redis,),
        stores=(store,),
        needs=namespaces_missing,
        note=_LATER if strike is head_killed else _LEASE,
        apart=True,
    )


_LEASE = (
    f"with Ray; the lease is {LEASE_MS / 1e3:.0f} s, so {LEASE_MS / 1e3 + 2.4:.1f} s are wanted"
)
_LATER = "from Ray's return: the start of our scheduler and of a renderer are in it"
_TWO = "two nodes of a renderer each, in namespaces of their own; "


FAULTS = [
    _fault(
        "1",
        "renderer killed under Ray",
        f"{_TWO}SIGKILL to the actor's process",
        renderer_killed,
        (NEW, STRICT),
    ),
    _fault("32", "a node's raylet killed", f"{_TWO}SIGKILL", raylet_killed, (OLD, WEAK)),
    _fault(
        "33",
        "a node frozen",
        f"{_TWO}SIGSTOP to raylet, agents and renderer, SIGCONT when others have its work",
        node_frozen,
        (NEW, STRICT),
    ),
    _fault(
        "34",
        "Ray's head killed",
        "one node in namespaces of its own; SIGKILL to gcs_server and raylet, then all is started",
        head_killed,
        (OLD, WEAK),
    ),
    _fault(
        "36",
        "scale-down while busy",
        f"{_TWO}`ray drain-node` for idleness, as Ray's autoscaler asks; again after the job",
        scaled_down,
        (NEW, STRICT),
    ),
]
