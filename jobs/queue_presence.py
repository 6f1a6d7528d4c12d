"""Who is alive (renderers, the scheduler), and what they tell the event stream."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jobs.queue_script import QueueScript
from jobs.queue_values import PoolChange, RendererRecord, checked_name
from jobs.redis_client import explained

#: Changes of the pool that are remembered.
POOL_CHANGES = 200
#: Among so many of them, the same one again is no news: a drain is repeated until it is heard.
POOL_LOOK = 50
# Beside a renderer's own fields; no name of theirs may have a "|".
_BEAT = "|beat_ms"
#: What the scheduler last said of the pool is forgotten after so long.
POOL_S = 60


class QueuePresence(QueueScript):
    """Heartbeats and events: news for people and the scheduler; no correctness rests on them."""

    def heartbeat(self, worker: str, info: Mapping[str, str], *, ttl_ms: int = 60_000) -> None:
        """List a renderer as living for `ttl_ms`; `info` replaces what it said before."""
        flat = [
            word for name, value in info.items() for word in (checked_name(name, "info"), value)
        ]
        self._op("heartbeat", checked_name(worker, "worker"), ttl_ms, *flat)

    def leave(self, worker: str) -> None:
        """Take a renderer off the list of the living."""
        self._op("heartbeat", checked_name(worker, "worker"), 0)

    def renderers(self) -> list[RendererRecord]:
        """Renderers with a heartbeat that has not run out."""
        with explained():
            workers = self._client.zrange(self.key("renderers"), 0, -1)
            pipe = self._client.pipeline(transaction=False)
            for worker in workers:
                pipe.hgetall(self.key(f"renderer:{worker}"))
            pairs = list(zip(workers, pipe.execute(), strict=True))
        return [_renderer(worker, record) for worker, record in pairs if record]

    def renderers_of(self, fields: Sequence[str]) -> list[RendererRecord]:
        """Living renderers with these words of theirs alone: for whoever asks often."""
        with explained():
            names: list[str] = self._client.zrange(self.key("renderers"), 0, -1)
        records = self._records([f"renderer:{name}" for name in names], [*fields, _BEAT])
        pairs = zip(names, records, strict=True)
        return [_renderer(name, record) for name, record in pairs if record]

    def scheduler_beat(self) -> None:
        """Note that a scheduler lives."""
        self._op("scheduler_beat")

    def scheduler_age_ms(self) -> int | None:
        """Milliseconds since a scheduler was last seen; None: never."""
        age = int(self._op("scheduler_age"))
        return None if age < 0 else age

    def note_pool(self, facts: Mapping[str, int]) -> None:
        """Say what the pool is like, for `POOL_S` seconds; it replaces what was said before."""
        pipe = self._client.pipeline(transaction=True)
        pipe.delete(self.key("pool"))
        pipe.hset(self.key("pool"), mapping={name: str(count) for name, count in facts.items()})
        pipe.expire(self.key("pool"), POOL_S)
        with explained():
            pipe.execute()

    def note_working(
        self, renderers: Mapping[str, int], waiting: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """Say how many renderers claim each engine's units and how many units wait for them, for
        `POOL_S` seconds: a job's last shards are divided among renderers that have no other."""
        pipe = self._client.pipeline(transaction=True)
        pipe.delete(self.key("working"))
        told = {key: f"{count}|{waiting.get(key, 0)}" for key, count in renderers.items()}
        if told:
            pipe.hset(self.key("working"), mapping=told)
            pipe.expire(self.key("working"), POOL_S)
        with explained():
            pipe.execute()

    def pool(self) -> dict[str, int]:
        """What the scheduler said of the pool; empty where it has been silent for a while."""
        with explained():
            found = self._client.hgetall(self.key("pool"))
        return {name: int(count) for name, count in found.items()}

    def note_pool_change(self, what: str, renderer: str) -> None:
        """Note that a renderer was started, or asked to leave: news for people, told once. Or that
        it is to become another (`refitted`), as often as that happens."""
        if what != "refitted" and any(
            (one.what, one.renderer) == (what, renderer) for one in self.pool_changes(POOL_LOOK)
        ):
            return
        change = json.dumps(
            {"what": what, "renderer": renderer, "at_ms": time.time_ns() // 1_000_000}
        )
        with explained():
            pipe = self._client.pipeline(transaction=True)
            pipe.lpush(self.key("pool_changes"), change)
            pipe.ltrim(self.key("pool_changes"), 0, POOL_CHANGES - 1)
            pipe.execute()

    def pool_changes(self, limit: int) -> list[PoolChange]:
        """The latest changes of the pool, newest first."""
        with explained():
            found = self._client.lrange(self.key("pool_changes"), 0, limit - 1)
        return [PoolChange(**json.loads(text)) for text in found]

    def life(self) -> str:
        """Which life of the Redis server this is: another one after each start or failover."""
        with explained():
            return str(self._client.info("server").get("run_id", "unknown"))

    def restored_in(self) -> str | None:
        """The life in which the queue was last compared with the store; None: it was emptied since,
        or never used."""
        with explained():
            found: str | None = self._client.get(self.key("restored"))
        return found

    def note_restored(self, life: str) -> None:
        """Note that the queue knows all that the store does, as of this life."""
        with explained():
            self._client.set(self.key("restored"), life)

    def emit(self, kind: str, job_id: str = "", **fields: str | int | float) -> None:
        """Add an event to the stream; sent again after a lost reply, it is not added twice."""
        flat = [word for pair in fields.items() for word in pair]
        self._op("emit", uuid.uuid4().hex, kind, job_id, *flat)


def _renderer(worker: str, record: Mapping[str, str]) -> RendererRecord:
    info = {name: value for name, value in record.items() if name != _BEAT}
    return RendererRecord(worker, int(record.get(_BEAT, 0)), info)
