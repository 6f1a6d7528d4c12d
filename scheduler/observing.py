"""From what the queue says to what the policy knows: work by tenant and priority, who is at it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import ValidationError

from jobs.queue_values import QueueJob, RendererRecord
from jobs.records import LoadTimes
from scheduler.facts import EngineDemand, Work

#: What a renderer says of itself.
_Info = Mapping[str, str]
#: Of a heartbeat, what `Beats` reads.
BEAT_FIELDS = (
    *("actor", "engine_key", "state", "load", "draining"),
    *("ready_s", "refit", "becomes"),
)


@dataclass(frozen=True)
class Beats:
    """What renderers last said of themselves, by actor name or engine."""

    draining: frozenset[str]
    idle: frozenset[str]
    #: Engines that a renderer could not load.
    broken: frozenset[str]
    #: Engine -> renderers that claim its units.
    working: Mapping[str, int]
    #: Engine -> seconds that a load of it took, what of them were stages of loading, and a refit.
    loads: Mapping[str, float]
    stages: Mapping[str, float]
    refits: Mapping[str, float]
    #: Actor -> engine that it has or loads; and those that have theirs.
    engines: Mapping[str, str]
    ready: frozenset[str]
    #: Actor -> engine that it becomes once it has finished what it holds.
    becoming: Mapping[str, str]

    @classmethod
    def of(cls, records: Iterable[RendererRecord]) -> "Beats":
        """From their heartbeats. Of one that died and was started again the latest counts."""
        latest: dict[str, RendererRecord] = {}
        for record in records:
            # Who names no actor is nobody's successor.
            name = record.info.get("actor") or record.worker
            if name not in latest or record.beat_ms >= latest[name].beat_ms:
                latest[name] = record
        infos = [record.info for record in latest.values()]
        claiming = [info for info in infos if info.get("state") in ("idle", "rendering")]
        wholes = [info for info in infos if not info.get("refit")]
        return cls(
            _actors(info for info in infos if info.get("draining")),
            _actors(info for info in infos if info.get("state") == "idle"),
            frozenset(
                info.get("engine_key", "") for info in infos if info.get("state") == "broken"
            ),
            Counter(
                info.get("engine_key", "")
                for info in claiming
                if not info.get("draining") and not info.get("becomes")
            ),
            loads=_seconds(wholes, lambda info: _ready_s(info) or _stages_s(info)),
            stages=_seconds(wholes, _stages_s),
            refits=_seconds((info for info in infos if info.get("refit")), _ready_s),
            engines=_by_actor(infos, "engine_key"),
            # One of an earlier release says no seconds, and knows no refit.
            ready=_actors(
                info for info in claiming if info.get("ready_s") and not info.get("becomes")
            ),
            becoming=_by_actor(infos, "becomes"),
        )


def _actors(infos: Iterable[_Info]) -> frozenset[str]:
    return frozenset(info.get("actor", "") for info in infos)


def _by_actor(infos: Iterable[_Info], field: str) -> dict[str, str]:
    return {one["actor"]: one[field] for one in infos if one.get("actor") and one.get(field)}


def _seconds(infos: Iterable[_Info], of: Callable[[_Info], float]) -> dict[str, float]:
    """Engine -> seconds, of those that tell any."""
    pairs = ((info.get("engine_key", ""), of(info)) for info in infos)
    return {key: seconds for key, seconds in pairs if seconds}


def _ready_s(info: _Info) -> float:
    """Seconds until it had its engine, from its process's first line or its last engine's end."""
    return float(info.get("ready_s") or 0)


def _stages_s(info: _Info) -> float:
    """Seconds of that which were stages of loading."""
    try:
        return LoadTimes.model_validate_json(info.get("load", "")).total_ms / 1e3
    except ValidationError:
        # It has loaded nothing yet.
        return 0.0


def waits(job: QueueJob) -> bool:
    """Whether a renderer has, or could have, something to do for the job."""
    return job.state == "run" or job.units_in_flight > 0


def ends_soon(job: QueueJob, working: int) -> bool:
    """Whether its last shards may have been divided among so many renderers."""
    return job.state == "run" and job.images_waiting > 0 and job.shards - job.cursor < working


def demand_of(
    engine_key: str,
    jobs: Iterable[QueueJob],
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
    return EngineDemand(engine_key, tuple(work.values()))


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
