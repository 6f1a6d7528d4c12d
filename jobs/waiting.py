"""Why a job waits, in words: from its state and from the renderers that hold its engine."""

from collections.abc import Sequence

from jobs.queue_values import QueueJob, RendererRecord
from jobs.states import TERMINAL, JobState

#: How the reason begins where an engine cannot be loaded: waiting alone does not mend that.
CANNOT_START = "its renderer cannot start"
#: The reason where engines are loaded and nothing can be read or written.
STORE_AWAY = "its renderers cannot reach the store"
#: A scheduler that was silent for longer counts as gone.
SCHEDULER_AWAY_MS = 30_000


def reason_of(
    record: QueueJob,
    state: JobState,
    renderers: Sequence[RendererRecord],
    scheduler_age_ms: int | None,
    spent: int = 0,
) -> str:
    """What a job waits for, or why it failed; empty while images of it are being made.

    `spent`: the shards in flight that its tenant may have, where it has them all.
    """
    if record.restoring:
        return "being read back from the store"
    if state == JobState.PAUSED:
        return "paused"
    if state == JobState.CANCELLING:
        return "renderers are dropping its shards" if record.units_in_flight else "being closed"
    if state == JobState.FINISHING:
        return "its index, card and timing are being written"
    if state == JobState.STOPPING:
        failed = record.failed_images + record.dead_images
        return f"{failed} images failed, {record.max_failed} may: its running shards are ending"
    if state in TERMINAL:
        return record.reason
    if state not in (JobState.WAITING, JobState.RUNNING) or record.units_in_flight:
        return ""
    return _quota_reason(spent) or _engine_reason(record.engine_key, renderers, scheduler_age_ms)


def _quota_reason(spent: int) -> str:
    return f"your quota: {spent} of your shards are in flight, and no more may be" if spent else ""


def _engine_reason(
    engine_key: str, renderers: Sequence[RendererRecord], scheduler_age_ms: int | None
) -> str:
    mine = [one.info for one in renderers if one.info.get("engine_key") == engine_key]
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
        return "behind other jobs"
    if scheduler_age_ms is None or scheduler_age_ms > SCHEDULER_AWAY_MS:
        return "no scheduler is running"
    return "no renderer yet"
