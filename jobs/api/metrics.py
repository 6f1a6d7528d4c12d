"""Prometheus metrics: requests and events as they pass, the queue as it is when somebody asks."""

import time

import redis
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.api.queue_metrics import OTHER, QueueCollector
from jobs.shard_queue import ShardQueue
from jobs.store_metrics import STORE_METRICS

#: Seconds until the first byte of an answer.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: A server passes on any word as a method: others would each be a label for ever.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_EVENTS = frozenset("submit claimed done fail release split dead state finished".split())


class Metrics:
    """One registry per app."""

    def __init__(self, queue: ShardQueue, probe: redis.Redis) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(QueueCollector(queue, probe))
        self._events = Counter(
            "fewstep_events",
            "Events of the queue, all of them in every API process: failures are among them.",
            ("type",),
            registry=self._registry,
        )
        labels = ("method", "route")
        self.requests = Counter(
            "fewstep_http_requests",
            "Requests answered.",
            (*labels, "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "fewstep_http_request_seconds",
            "Until the first byte of the answer.",
            labels,
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def page(self) -> bytes:
        """All of it in Prometheus' text form."""
        return generate_latest(self._registry) + generate_latest(STORE_METRICS)

    def note_event(self, kind: str) -> None:
        """Count an event of the queue's stream."""
        self._events.labels(kind if kind in _EVENTS else OTHER).inc()


class Measured:
    """Counts and times every request by its route, so that no id becomes a label."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"], time.perf_counter() - begin)
            await send(message)

        await self._app(scope, receive, noting)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        known = route != "none" and scope["method"] in _METHODS
        method = scope["method"] if known else "any"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
