"""Nodes that are about to go, and nodes that are gone: what their renderers held is offered again.

Without it both would be noticed too: the one when the node is gone, the other when leases run out.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jobs.queue_values import RendererRecord
from jobs.shard_queue import ShardQueue
from scheduler.facts import Facts
from scheduler.sharing import SHARING_FIELDS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Nodes:
    """What Ray says of its nodes, by its names for them."""

    #: Those that were told to go, and in how many seconds (below 0: late); None: nobody said.
    closing: Mapping[str, float | None] = field(default_factory=dict)
    #: Those that are no more.
    lost: frozenset[str] = frozenset()


class HasNodes(Protocol):
    """Where the nodes are, and renderers that can be told to leave."""

    def nodes(self) -> Nodes:
        """Nodes that are about to go, or gone."""

    def drain(self, name: str, seconds: float | None = None) -> None:
        """Tell a renderer to leave, in so many seconds if given."""

    def hear(self, renderers: Sequence[RendererRecord]) -> None:
        """Take in what renderers say of their memory."""


@dataclass
class Leaving:
    """Tells renderers whose node is about to go, and ends the leases of those whose node is gone.

    Two schedulers may do so at once. Should a lost node live after all, its leases' tokens are
    fences: it commits nothing any more.
    """

    queue: ShardQueue
    pool: HasNodes
    #: Renderers on nodes that are about to go: others may take their place already.
    names: frozenset[str] = frozenset()
    #: Renderers that said that they live.
    living: frozenset[str] = frozenset()

    def look(self) -> None:
        """Once a second or so. Who was told before is told again: a word may have been lost."""
        # First who is where, so that Ray knows each node that is named.
        renderers = self.queue.renderers_of(("ray_node", *SHARING_FIELDS))
        self.pool.hear(renderers)
        self.living = frozenset(one.info.get("actor", "") for one in renderers)
        nodes = self.pool.nodes()
        going: dict[str, float | None] = {}
        for one in renderers:
            node = one.info.get("ray_node", "")
            if node in nodes.lost:
                self._take_back(one)
            elif node in nodes.closing and "actor" in one.info:
                going[one.info["actor"]] = nodes.closing[node]
        for name in going.keys() - self.names:
            log.info("node_closing renderer=%s seconds=%s", name, going[name])
        self.names = frozenset(going)
        for name, seconds in going.items():
            self.pool.drain(name, seconds)

    def in_vain(self, facts: Facts) -> list[str]:
        """Renderers that have not come yet, of engines that have nothing to do any more."""
        if facts.least:
            return []
        over = {one.engine_key for one in facts.demands if not one.units}
        return [
            one.name
            for one in facts.renderers
            if one.engine_key in over and one.name not in self.living
        ]

    def _take_back(self, gone: RendererRecord) -> None:
        """End its leases: not as deaths that were a unit's doing, for it is the node that died."""
        held = [lease for lease in self.queue.leases() if lease.worker == gone.worker]
        log.warning("node_lost worker=%s units=%d", gone.worker, len(held))
        for lease in held:
            self.queue.fail(
                lease.job_id, lease.unit, lease.token, "release", "its renderer's node is gone"
            )
        self.queue.leave(gone.worker)
