"""Why a job waits, in words: from its state, the renderers there are and what they work for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.queue_placement import Placement
from jobs.queue_values import QueueJob, RendererRecord
from jobs.shard_queue import ShardQueue
from jobs.states import TERMINAL, JobState

#: How the reason begins where an engine cannot be loaded: waiting alone does not mend that.
CANNOT_START = "its renderer cannot start"
#: The reason where engines are loaded and nothing can be read or written.
STORE_AWAY = "its renderers cannot reach the store"
#: How the reason begins where there is no room for the job's engine.
NO_ROOM = "no renderer fits"
#: How the reason begins where a renderer is on its way.
SCALING_UP = "scaling up"
NO_SCHEDULER = "no scheduler is running"
#: A scheduler that was silent for longer counts as gone.
SCHEDULER_AWAY_MS = 30_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What a waiting job waits behind, as of one moment."""

    renderers: Sequence[RendererRecord] = ()
    #: Since a scheduler was last heard of; None: never.
    scheduler_age_ms: int | None = None
    placement: Placement | None = None
    #: Engine -> tenants whose shards are in flight on its renderers.
    working_for: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: The shards in flight that the job's tenant may have, where it has them all.
    spent: int = 0


def scene_of(queue: ShardQueue, tenant: str) -> Scene:
    """The scene for a tenant's jobs; raises Unreachable."""
    return Scene(
        queue.renderers(),
        queue.scheduler_age_ms(),
        queue.placement(),
        queue.working_for(),
        queue.spent_shards(tenant),
    )


def reason_of(record: QueueJob, state: JobState, scene: Scene) -> str:
    """What a job waits for, or why it failed; empty while images of it are being made."""
    if record.restoring:
        return "being read back from the store"
    if state == JobState.PAUSED:
        return "paused"
    if state == JobState.CANCELLING:
        return "renderers are dropping its shards" if record.units_in_flight else "being closed"
    if state == JobState.FINISHING:
        return "its index, card and timing are being written"
    if state == JobState.STOPPING:
        return f"{_why_stopping(record)}: its running shards are ending"
    if state in TERMINAL:
        return record.reason
    if state not in (JobState.WAITING, JobState.RUNNING) or record.units_in_flight:
        return ""
    return _quota_reason(scene.spent) or _engine_reason(record, scene)


def _why_stopping(record: QueueJob) -> str:
    if record.limit:
        return f"it is at its limit, {record.limit}"
    return f"{record.failed_images + record.dead_images} images failed, {record.max_failed} may"


def _quota_reason(spent: int) -> str:
    return f"your quota: {spent} of your shards are in flight, and no more may be" if spent else ""


def _engine_reason(record: QueueJob, scene: Scene) -> str:
    # One that is leaving, or becomes another's, takes no more shards.
    mine = [
        one.info
        for one in scene.renderers
        if one.info.get("engine_key") == record.engine_key
        and not (one.info.get("draining") or one.info.get("becomes"))
    ]
    states = {info.get("state", "") for info in mine}
    if "broken" in states:
        trouble = next(info.get("error", "") for info in mine if info.get("state") == "broken")
        return f"{CANNOT_START}: {trouble}"[:300]
    if states and states <= {"starting", "loading"}:
        return "loading weights"
    if states and states <= {"starting", "loading", "compiling"}:
        return "compiling its nets"
    if "waiting for the store" in states:
        return STORE_AWAY
    if states:
        tenants = scene.working_for.get(record.engine_key, frozenset())
        return _behind(tenants, record.tenant) or "its renderer takes it up next"
    return _placement_reason(record, scene)


def _placement_reason(record: QueueJob, scene: Scene) -> str:
    """Why no renderer holds the job's engine."""
    if scene.scheduler_age_ms is None or scene.scheduler_age_ms > SCHEDULER_AWAY_MS:
        return NO_SCHEDULER
    placed, engine = scene.placement, record.engine_key
    if placed is not None and placed.held.get(engine):
        return f"{SCALING_UP}: its renderer is being started"
    if placed is None or engine not in placed.wanted:
        return f"{SCALING_UP}: the scheduler is about to place it"
    if engine in placed.unreadable:
        return f"{CANNOT_START}: the scheduler cannot read its settings from the store"
    if placed.wanted[engine]:
        return f"{SCALING_UP}: room for its renderer is being made"
    if not placed.slots:
        return f"{NO_ROOM}: the cluster has no device for one"
    tenants = frozenset[str]().union(*scene.working_for.values())
    held = f"{NO_ROOM}: other engines have all {placed.slots} places"
    behind = _behind(tenants, record.tenant)
    return f"{held}, {behind}" if behind else held


def _behind(tenants: frozenset[str], own: str) -> str:
    """Whose jobs are being served, as their user sees it; "" where none is."""
    if not tenants:
        return ""
    if tenants == {own}:
        return "behind your own jobs"
    return "behind others' jobs" if own not in tenants else "behind your own jobs and others'"
