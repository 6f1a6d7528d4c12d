"""What the queue, the pool and Redis are like when somebody asks, for Prometheus."""

import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.errors import FewstepError
from jobs.queue_values import QueueJob, RendererRecord
from jobs.redis_client import check_server
from jobs.shard_queue import ShardQueue

#: Label values at most: of tenants with engines, and of engines. The rest is `other`, together.
PAIRS_MAX, ENGINES_MAX = 200, 50
OTHER = "other"
_STATES = frozenset(
    {"starting", "loading", "compiling", "idle", "rendering", "broken", "waiting for the store"}
)
#: Counters that renderers and the scheduler add to in Redis: kind -> name, help, label.
_TOTALS = {
    "images": ("fewstep_done_images", "Of jobs that are done.", "state"),
    "stage": ("fewstep_stage_seconds", "Time by stage, of jobs that are done.", "stage"),
    "image": ("fewstep_rendered_images", "Of committed units: ok, or why there is none.", "status"),
    "work": ("fewstep_work_seconds", "Time by stage, of committed units.", "stage"),
    "stall": ("fewstep_stall_seconds", "What devices stood still for.", "cause"),
    "unit": ("fewstep_units", "Units that were delivered, by the queue's answer.", "answer"),
}


class QueueCollector(Collector):
    """Reads the queue at each scrape; holds nothing. While Redis is away it says only that."""

    def __init__(self, queue: ShardQueue, probe: redis.Redis) -> None:
        self._queue, self._probe = queue, probe

    def describe(self) -> list[Metric]:
        """Nothing beforehand, so that registering asks no server."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All of it, or `fewstep_redis_up 0`."""
        try:
            # The probe gives up within seconds: the queue's own client is patient.
            found = [*self._redis(), *self._jobs(), *self._pool(), *self._totals()]
        except FewstepError:
            found = [_single("fewstep_redis_up", "Whether Redis answers.", 0)]
        yield from found

    def _redis(self) -> Iterator[Metric]:
        facts = check_server(self._probe)
        yield _single("fewstep_redis_up", "Whether Redis answers.", 1)
        yield _single("fewstep_redis_memory_bytes", "Memory it uses.", facts.used_memory)
        limit = "Memory it may use; 0: no limit."
        yield _single("fewstep_redis_memory_limit_bytes", limit, facts.maxmemory)
        kept = "Whether it keeps an append-only file."
        yield _single("fewstep_redis_append_only", kept, int(facts.append_only))

    def _jobs(self) -> Iterator[Metric]:
        jobs = self._queue.open_jobs()
        yield _gauge("fewstep_jobs", "Open jobs.", "state", Tally(job.state for job in jobs))
        yield _gauge("fewstep_images", "Images of open jobs.", "state", _images(jobs))
        images, seconds = _depths(jobs)
        text = "Images that wait, by tenant and engine."
        yield _by_pair("fewstep_queue_images", text, images, images)
        text = "What they cost, as their submission estimated it."
        yield _by_pair("fewstep_queue_device_seconds", text, seconds, images)
        yield _single(
            "fewstep_units_in_flight", "Leases.", sum(job.units_in_flight for job in jobs)
        )
        text = "Of the job that has stood still for longest, with images waiting and none in hand."
        yield _single("fewstep_queue_wait_seconds", text, _longest_wait_s(jobs))

    def _pool(self) -> Iterator[Metric]:
        pool = self._queue.pool()
        for name, text in (
            ("slots", "Renderers that the cluster may hold."),
            ("renderers", "Renderers that Ray has, those that wait for a node included."),
            ("draining", "Of them, those that were told to leave."),
        ):
            family = GaugeMetricFamily(f"fewstep_pool_{name}", text)
            if name in pool:
                family.add_metric([], pool[name])
            yield family
        yield _renderers(self._queue.renderers())
        family = GaugeMetricFamily("fewstep_scheduler_age_seconds", "Since it was last seen.")
        age = self._queue.scheduler_age_ms()
        if age is not None:
            family.add_metric([], age / 1000)
        yield family

    def _totals(self) -> Iterator[Metric]:
        families = {
            kind: CounterMetricFamily(name, text, labels=[label])
            for kind, (name, text, label) in _TOTALS.items()
        }
        for name, value in sorted(self._queue.totals().items()):
            kind, _, label = name.partition(":")
            if kind in families:
                families[kind].add_metric([label], value)
        yield from families.values()


def _images(jobs: Iterable[QueueJob]) -> Tally[str]:
    found: Tally[str] = Tally({"waiting": 0, "rendering": 0, "done": 0, "failed": 0})
    for job in jobs:
        found["waiting"] += job.images_waiting
        found["rendering"] += job.images_in_flight
        found["done"] += job.done_images
        found["failed"] += job.failed_images + job.dead_images
    return found


def _depths(jobs: Iterable[QueueJob]) -> tuple[dict[tuple[str, str], float], ...]:
    """Images and device-seconds that wait, by tenant and engine."""
    images: dict[tuple[str, str], float] = {}
    seconds: dict[tuple[str, str], float] = {}
    for job in jobs:
        if job.state == "run" and job.images_waiting:
            pair = (job.tenant, job.engine_key)
            images[pair] = images.get(pair, 0) + job.images_waiting
            seconds[pair] = seconds.get(pair, 0) + job.images_waiting * job.unit_cost
    return images, seconds


def _longest_wait_s(jobs: Iterable[QueueJob]) -> float:
    now_ms = time.time() * 1e3
    since = [
        max(job.submitted_ms, job.last_progress_ms or 0)
        for job in jobs
        if job.state == "run" and job.images_waiting and not job.units_in_flight
    ]
    return max(0.0, (now_ms - min(since)) / 1e3) if since else 0.0


def _by_pair(
    name: str,
    text: str,
    values: Mapping[tuple[str, str], float],
    order: Mapping[tuple[str, str], float],
) -> Metric:
    """One gauge by tenant and engine: the deepest `PAIRS_MAX` of `order`, the rest as one."""
    family = GaugeMetricFamily(name, text, labels=["tenant", "engine"])
    ranked = sorted(values, key=lambda pair: (-order[pair], pair))
    for pair in ranked[:PAIRS_MAX]:
        family.add_metric(pair, values[pair])
    if rest := ranked[PAIRS_MAX:]:
        family.add_metric((OTHER, OTHER), sum(values[pair] for pair in rest))
    return family


def _renderers(living: Iterable[RendererRecord]) -> Metric:
    seen = [(one.info.get("engine_key", ""), one.info.get("state", "")) for one in living]
    commonest = Tally(engine for engine, _ in seen).most_common(ENGINES_MAX)
    kept = {engine for engine, _ in commonest}
    counts = Tally(
        (engine if engine in kept else OTHER, state if state in _STATES else OTHER)
        for engine, state in seen
    )
    family = GaugeMetricFamily("fewstep_renderers", "Living renderers.", labels=["engine", "state"])
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def _single(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _gauge(name: str, text: str, label: str, values: Tally[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family
