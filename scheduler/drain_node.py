"""`python -m scheduler.drain_node`: the renderers of this node finish what they hold, and leave.

For a node that is about to go (an upgrade, a preemption notice, a pod that is deleted): run there.
"""

import argparse
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from redis import RedisError

from jobs.errors import FewstepError
from jobs.logs import start_logging
from jobs.redis_client import control_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from scheduler.pool import Pool

log = logging.getLogger("scheduler.drain_node")

PERIOD_S = 1.0


def drain(
    queue: ShardQueue, node: str, tell: Callable[[str, float], None], seconds: float, period: float
) -> list[str]:
    """Tell every renderer of `node` to leave, and wait up to `seconds`; those that are left.

    Each is told how long it has. One that is started there meanwhile is told too.
    """
    end, told = time.monotonic() + seconds, set[str]()
    while True:
        names = renderers_on(queue, node)
        for name in names:
            if name not in told:
                tell(name, end - time.monotonic())
                told.add(name)
        if not names or time.monotonic() >= end:
            log.info("node_drained node=%s told=%d left=%d", node, len(told), len(names))
            return names
        time.sleep(period)


def renderers_on(queue: ShardQueue, node: str) -> list[str]:
    """The living renderers of a node, by their actors' names."""
    found = (one.info for one in queue.renderers())
    return sorted(info["actor"] for info in found if info.get("node") == node and "actor" in info)


def close_node(seconds: float) -> None:
    """Ask Ray to place nothing more on this node; it may all the same (`drain` tells who comes).

    By Ray's own command: there is no public function for it.
    """
    asked = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ray")), "drain-node"),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", "fewstep drains this node"),
            *("--deadline-remaining-seconds", str(max(1, round(seconds)))),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        log.warning("node_not_closed error=%s", (asked.stderr or asked.stdout)[-300:])


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every renderer of this node has left; 1: some are still at work."""
    parser = argparse.ArgumentParser(
        prog="python -m scheduler.drain_node", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=270.0, help="how long to wait for them")
    chosen = parser.parse_args(arguments)
    settings = Settings()
    start_logging(settings.log)
    try:
        close_node(chosen.seconds)
        Pool.connect(settings.ray_address)
        queue = ShardQueue(control_client(settings.redis_url.get_secret_value()))
        tell = Pool(settings.max_renderers).drain
        left = drain(queue, socket.gethostname(), tell, chosen.seconds, PERIOD_S)
    except (FewstepError, RedisError, ConnectionError) as error:
        print(f"drain_node: {error}", file=sys.stderr)
        return 3
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
