"""Telling webhooks what happened: events in, signed requests out, again until they are taken."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpcore
from standardwebhooks import Webhook

from jobs.errors import FewstepError, InvalidInput, NotFound
from jobs.events import EventFeed
from jobs.shard_queue import ShardQueue
from jobs.webhook_guard import GuardedBackend, Reach, checked_url
from jobs.webhook_outbox import Delivery, Outbox
from jobs.webhooks import Hook, HookStore, kind_of, message_of

log = logging.getLogger(__name__)

#: Seconds for a whole attempt: a webhook that takes longer is told again.
TIMEOUT_S = 10.0
PERIOD_S = 1.0
#: Sent side by side; together they take less time than they are hidden from other senders.
AT_ONCE = 20


class Sender:
    """Reads the event stream behind a cursor in Redis; may run in any number of processes.

    A message may come twice (the same `webhook-id`), never not at all while Redis keeps its memory.
    """

    def __init__(
        self, queue: ShardQueue, feed: EventFeed, outbox: Outbox, hooks: HookStore, reach: Reach
    ) -> None:
        self._queue, self._feed, self._outbox = queue, feed, outbox
        self._hooks, self._reach = hooks, reach
        self._tls = httpcore.default_ssl_context()

    def run(self, stop: threading.Event) -> None:
        """Collect and send until told to stop; what fails is logged and tried again."""
        while not stop.wait(PERIOD_S):
            try:
                self.step()
            except FewstepError as error:
                log.warning("webhooks_wait error=%s", error)

    def step(self) -> None:
        """What happened since the last time, and what is due."""
        self.collect()
        # A slow webhook holds up nobody else's message.
        with ThreadPoolExecutor(AT_ONCE, "webhook") as threads:
            list(threads.map(self.send, self._outbox.take(AT_ONCE)))

    def collect(self) -> None:
        """Turn news into messages; the cursor moves when they are in the outbox."""
        cursor = self._outbox.cursor()
        if cursor is None:
            self._outbox.move(self._feed.newest())
            return
        page = self._feed.read(cursor)
        tenants: dict[str, list[Hook]] = {}
        for event in page.events:
            kind = kind_of(event)
            record = self._queue.job(event.job_id) if kind is not None else None
            if kind is None or record is None:
                continue
            if record.tenant not in tenants:
                tenants[record.tenant] = self._hooks.of(record.tenant)
            for hook in tenants[record.tenant]:
                if kind in hook.events:
                    self._outbox.add(hook, message_of(hook, event, kind))
        if page.cursor != cursor:
            self._outbox.move(page.cursor)

    def send(self, delivery: Delivery) -> Delivery:
        """Try one delivery; its new state."""
        try:
            hook = self._hooks.get(delivery.tenant, delivery.hook)
        except NotFound:
            return self._outbox.settle(delivery, "the webhook was deleted", ok=False, final=True)
        try:
            status = self._post(hook, delivery)
        except InvalidInput as error:
            return self._outbox.settle(delivery, str(error), ok=False, final=True)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            news = f"{type(error).__name__}: {error}"
            return self._outbox.settle(delivery, news, ok=False)
        # 410: whoever it was does not want to hear of it again.
        ok, final = 200 <= status < 300, status == 410
        return self._outbox.settle(delivery, f"status {status}", ok=ok, final=final)

    def _post(self, hook: Hook, delivery: Delivery) -> int:
        url, now = checked_url(hook.url, self._reach), datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "fewstep",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(hook.secret).sign(delivery.id, now, delivery.body),
        }
        limits = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
        # A connection of its own: one that is kept would have the end of another attempt.
        backend = GuardedBackend(self._reach, time.monotonic() + TIMEOUT_S)
        # The answer's body is not read: it may be endless. A redirect is an answer like any other.
        with (
            httpcore.ConnectionPool(self._tls, network_backend=backend) as connections,
            connections.stream(
                "POST",
                url,
                headers=list(headers.items()),
                content=delivery.body.encode(),
                extensions={"timeout": limits},
            ) as reply,
        ):
            return int(reply.status)
