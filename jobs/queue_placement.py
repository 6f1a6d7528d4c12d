"""What the scheduler last placed, and whose shards are in flight: facts for whoever waits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from jobs.queue_script import QueueScript
from jobs.redis_client import explained

#: A scheduler says anew what it placed every half second: this old, it is news no more.
KEEP_MS = 30_000
#: Leases looked at: more are in flight only where hundreds of renderers are.
LEASES_SEEN = 2_000


@dataclass(frozen=True, slots=True)
class Placement:
    """What the scheduler decided in its last round."""

    #: Renderers that the cluster has room for.
    slots: int
    #: Engine -> renderers that Ray has of it, those included that have not reported yet.
    held: Mapping[str, int] = field(default_factory=dict)
    #: Engine with work -> renderers it shall have; 0: there is no room for it.
    wanted: Mapping[str, int] = field(default_factory=dict)
    #: Engines of which no job's settings could be read from the store.
    unreadable: Sequence[str] = ()


class QueuePlacement(QueueScript):
    """News for people; no correctness rests on them."""

    def place(self, placement: Placement) -> None:
        """Say what was placed; forgotten when nobody says so again."""
        words = json.dumps(asdict(placement))
        with explained():
            self._client.set(self.key("placement"), words, px=KEEP_MS)

    def placement(self) -> Placement | None:
        """What the scheduler last placed; None: nobody has said so for half a minute."""
        with explained():
            text = self._client.get(self.key("placement"))
        return Placement(**json.loads(text)) if text else None

    def working_for(self) -> dict[str, frozenset[str]]:
        """Engine -> tenants whose shards are in flight on its renderers."""
        with explained():
            units = self._client.zrange(self.key("leases"), 0, LEASES_SEEN - 1)
            pipe = self._client.pipeline(transaction=False)
            for job_id in sorted({unit.partition("|")[0] for unit in units}):
                pipe.hmget(self.key(f"job:{job_id}"), "engine", "tenant")
            pairs = [(engine, tenant) for engine, tenant in pipe.execute() if engine and tenant]
        engines = {engine for engine, _ in pairs}
        return {
            engine: frozenset(tenant for other, tenant in pairs if other == engine)
            for engine in engines
        }
