"""What is to be told to webhooks, and what became of it: in Redis, for seven days."""

import time
from typing import Any, Literal

import redis

from jobs.queue_script import QueueScript
from jobs.recipe import Frozen
from jobs.redis_client import explained
from jobs.webhooks import Hook, Kind, Message

KEEP_S = 7 * 24 * 3600
#: Deliveries that are listed of one tenant, the newest.
LISTED = 1_000
#: Waits before a message is sent again, in seconds; after the last it is dead.
WAITS_S = (5, 30, 120, 600, 3_600, 21_600, 86_400)
#: A message that somebody took is another's after so long, in milliseconds.
TAKEN_MS = 60_000

State = Literal["waiting", "delivered", "dead"]

# Takes what is due, and hides it for a while, so that two senders do not take the same.
_TAKE = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[1] + ARGV[3], id) end
return due
"""

# Keeps a message and makes it due in one step: between two it could be kept and never due.
# Again with the same message, as after a reply that was lost, it changes nothing.
_ADD = """
local record, due, listed = KEYS[1], KEYS[2], KEYS[3]
local id, text, now, keep_s, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
if not redis.call('SET', record, text, 'EX', keep_s, 'NX') then return 0 end
redis.call('ZADD', due, now, id)
redis.call('ZADD', listed, now, id)
redis.call('ZREMRANGEBYRANK', listed, 0, -most - 1)
redis.call('EXPIRE', listed, keep_s)
return 1
"""


class Delivery(Frozen):
    """A message on its way to a webhook. Times are milliseconds since 1970 (UTC)."""

    id: str
    hook: str
    tenant: str
    kind: Kind
    body: str
    state: State = "waiting"
    attempts: int = 0
    #: What came of the last attempt.
    news: str = ""
    made_ms: int
    next_ms: int | None = None


class Outbox(QueueScript):
    """Deliveries by the id of their message; losing Redis forgets those that were not sent."""

    def __init__(self, client: redis.Redis, prefix: str = "{fewstep}") -> None:
        super().__init__(client, prefix)

    def cursor(self) -> str | None:
        """The event behind which news begin; None: never read."""
        with explained():
            found: str | None = self._client.get(self.key("hooks:cursor"))
        return found

    def move(self, cursor: str) -> None:
        """Note how far the events were read, after what they made was added."""
        with explained():
            self._client.set(self.key("hooks:cursor"), cursor, ex=KEEP_S)

    def add(self, hook: Hook, message: Message) -> bool:
        """Add a message, once, to be sent at once; whether it is new."""
        now = time.time_ns() // 1_000_000
        made = Delivery(
            id=message.id,
            hook=hook.id,
            tenant=hook.tenant,
            kind=message.kind,
            body=message.body,
            made_ms=now,
            next_ms=now,
        )
        keys = (self._record(made.id), self.key("hooks:due"), self._listed(hook.tenant))
        more = (made.id, made.model_dump_json(), now, KEEP_S, LISTED)
        with explained():
            return bool(self._client.eval(_ADD, len(keys), *keys, *more))

    def take(self, limit: int) -> list[Delivery]:
        """Up to `limit` deliveries that are due; they are nobody else's for a minute."""
        now = time.time_ns() // 1_000_000
        with explained():
            names = self._client.eval(_TAKE, 1, self.key("hooks:due"), now, limit, TAKEN_MS)
            found = [(name, self._client.get(self._record(name))) for name in names]
            for name, text in found:
                if text is None:
                    self._client.zrem(self.key("hooks:due"), name)
        return [Delivery.model_validate_json(text) for _, text in found if text is not None]

    def settle(self, delivery: Delivery, news: str, *, ok: bool, final: bool = False) -> Delivery:
        """Note what came of an attempt; `final`: it is not tried again."""
        attempts = delivery.attempts + 1
        again = not ok and not final and attempts <= len(WAITS_S)
        next_ms = time.time_ns() // 1_000_000 + WAITS_S[attempts - 1] * 1000 if again else None
        state: State = "delivered" if ok else "waiting" if again else "dead"
        changed = {"attempts": attempts, "news": news[:200], "state": state, "next_ms": next_ms}
        now = delivery.model_copy(update=changed)
        due = self.key("hooks:due")
        pipe = self._client.pipeline(transaction=True)
        pipe.set(self._record(now.id), now.model_dump_json(), ex=KEEP_S)
        if next_ms is None:
            pipe.zrem(due, now.id)
        else:
            pipe.zadd(due, {now.id: next_ms})
        with explained():
            pipe.execute()
        return now

    def deliveries(self, tenant: str, state: State | None, limit: int) -> list[Delivery]:
        """A tenant's deliveries, newest first."""
        with explained():
            names = self._client.zrevrange(self._listed(tenant), 0, LISTED - 1)
            texts: list[Any] = (
                self._client.mget([self._record(name) for name in names]) if names else []
            )
        found = [Delivery.model_validate_json(text) for text in texts if text]
        return [one for one in found if state in (None, one.state)][:limit]

    def _record(self, message_id: str) -> str:
        return self.key(f"hooks:message:{message_id}")

    def _listed(self, tenant: str) -> str:
        return self.key(f"hooks:of:{tenant}")
