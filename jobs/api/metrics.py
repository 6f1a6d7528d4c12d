"""Prometheus metrics: requests as they pass, and the queue as it is when somebody asks."""

import time
from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.queue_values import QueueJob
from jobs.shard_queue import ShardQueue

#: Seconds until the first byte of an answer.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: A server passes on any word as a method: others would each be a label for ever.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """One registry per app."""

    def __init__(self, queue: ShardQueue) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(QueueCollector(queue))
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
        """All of it in Prometheus' text form; raises Unreachable."""
        return generate_latest(self._registry)


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


class QueueCollector(Collector):
    """Reads the queue at each scrape; holds nothing."""

    def __init__(self, queue: ShardQueue) -> None:
        self._queue = queue

    def describe(self) -> list[Metric]:
        """Nothing beforehand, so that registering asks no server."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Jobs, images, renderers and what finished jobs took."""
        jobs = self._queue.open_jobs()
        yield _gauge("fewstep_jobs", "Open jobs.", "state", Tally(job.state for job in jobs))
        yield _gauge("fewstep_images", "Images of open jobs.", "state", _images(jobs))
        waiting: Tally[str] = Tally()
        for job in jobs:
            if job.state == "run":
                waiting[job.engine_key] += job.images_waiting
        yield _gauge("fewstep_queue_images", "Images that wait, by engine.", "engine", waiting)
        states = Tally(one.info.get("state", "unknown") for one in self._queue.renderers())
        yield _gauge("fewstep_renderers", "Living renderers.", "state", states)
        age = self._queue.scheduler_age_ms()
        if age is not None:
            yield GaugeMetricFamily(
                "fewstep_scheduler_age_seconds", "Since it was last seen.", age / 1000
            )
        yield from self._totals()

    def _totals(self) -> Iterator[Metric]:
        totals = self._queue.totals()
        images = CounterMetricFamily(
            "fewstep_done_images", "Of jobs that are done.", labels=["state"]
        )
        stages = CounterMetricFamily(
            "fewstep_stage_seconds", "Time by stage, of jobs that are done.", labels=["stage"]
        )
        for name, value in sorted(totals.items()):
            kind, _, label = name.partition(":")
            (images if kind == "images" else stages).add_metric([label], value)
        yield images
        yield stages


def _images(jobs: list[QueueJob]) -> Tally[str]:
    found: Tally[str] = Tally({"waiting": 0, "rendering": 0, "done": 0, "failed": 0})
    for job in jobs:
        found["waiting"] += job.images_waiting
        found["rendering"] += job.images_in_flight
        found["done"] += job.done_images
        found["failed"] += job.failed_images + job.dead_images
    return found


def _gauge(name: str, text: str, label: str, values: Tally[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family
