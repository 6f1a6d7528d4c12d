"""From what the queue says to what the policy knows: work by tenant and priority, who is at it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import ValidationError

from jobs.queue_values import QueueJob, RendererRecord
from jobs.records import LoadTimes
from scheduler.facts import LOAD_S, EngineDemand, Work

#: Of a heartbeat, what `Beats` reads.
BEAT_FIELDS = ("actor", "engine_key", "state", "load", "draining")


@dataclass(frozen=True)
class Beats:
    """What renderers last said of themselves, by actor name or engine."""

    draining: frozenset[str]
    idle: frozenset[str]
    #: Engines that a renderer could not load.
    broken: frozenset[str]
    #: Engine -> renderers that claim its units.
    working: Mapping[str, int]
    loads: Mapping[str, LoadTimes]

    @classmethod
    def of(cls, records: Iterable[RendererRecord]) -> "Beats":
        """From their heartbeats."""
        infos = [record.info for record in records]
        return cls(
            frozenset(info.get("actor", "") for info in infos if info.get("draining")),
            frozenset(info.get("actor", "") for info in infos if info.get("state") == "idle"),
            frozenset(
                info.get("engine_key", "") for info in infos if info.get("state") == "broken"
            ),
            Counter(
                info.get("engine_key", "")
                for info in infos
                if info.get("state") in ("idle", "rendering") and not info.get("draining")
            ),
            {
                info.get("engine_key", ""): times
                for info in infos
                if (times := _load(info.get("load", ""))) is not None
            },
        )


def waits(job: QueueJob) -> bool:
    """Whether a renderer has, or could have, something to do for the job."""
    return job.state == "run" or job.units_in_flight > 0


def ends_soon(job: QueueJob, working: int) -> bool:
    """Whether its last shards may have been divided among so many renderers."""
    return job.state == "run" and job.images_waiting > 0 and job.shards - job.cursor < working


def demand_of(
    engine_key: str,
    jobs: Iterable[QueueJob],
    base_key: str,
    load: LoadTimes | None,
    parts: Mapping[str, int] = MappingProxyType({}),
) -> EngineDemand:
    """What these jobs want of their engine, by tenant and priority.

    `parts`: of jobs that end soon, units that wait beside the shards that nobody had yet.
    """
    work: dict[tuple[str, int], Work] = {}
    for job in jobs:
        waiting = job.images_waiting if job.state == "run" else 0
        units = _units_waiting(job, waiting, parts.get(job.job_id, 0)) + job.units_in_flight
        cost = (waiting + job.images_in_flight) * job.image_cost
        if units:
            key = (job.tenant, job.priority)
            before = work.get(key, Work(*key, 0, 0.0))
            work[key] = Work(
                *key,
                before.units + units,
                before.cost_s + cost,
                before.in_flight + job.units_in_flight,
            )
    load_s = load.total_ms / 1000 if load is not None else 0.0
    return EngineDemand(engine_key, tuple(work.values()), base_key, load_s or LOAD_S)


def units_waiting(demands: Iterable[EngineDemand], jobs: Iterable[QueueJob]) -> dict[str, int]:
    """Engine -> units that wait for its renderers: what these jobs want of it and nobody has."""
    flying = Counter[str]()
    for job in jobs:
        flying[job.engine_key] += job.units_in_flight
    return {one.engine_key: max(0, one.units - flying[one.engine_key]) for one in demands}


def _units_waiting(job: QueueJob, images: int, parts: int) -> int:
    """Units that so many waiting images are: whole shards, or more where some were divided."""
    whole = -(-images // job.shard_images)
    return max(whole, parts + min(whole, job.shards - job.cursor)) if images else 0


def _load(text: str) -> LoadTimes | None:
    try:
        return LoadTimes.model_validate_json(text)
    except ValidationError:
        # It has loaded nothing yet.
        return None
