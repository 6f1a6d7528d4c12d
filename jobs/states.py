"""The states of a job as its user sees them, and every way from one to the next."""

from enum import StrEnum


class JobState(StrEnum):
    """What a job is doing; `docs/states.md` has the picture."""

    #: Accepted; no shard has been claimed yet.
    WAITING = "waiting"
    #: Renderers work on it.
    RUNNING = "running"
    #: Held by its user: no new shard starts.
    PAUSED = "paused"
    #: Every image is accounted for; index, card and timing are being written.
    FINISHING = "finishing"
    #: Cancelled by its user; running shards are ending.
    CANCELLING = "cancelling"
    #: More images failed than may, or it is at a limit of its budget; running shards are ending.
    STOPPING = "stopping"
    #: Complete: `_SUCCESS` is written.
    DONE = "done"
    #: Ended at a limit of its budget with what it has; it goes on where that is raised.
    STOPPED = "stopped"
    #: Ended by its user; what was committed stays.
    CANCELLED = "cancelled"
    #: Ended by the error budget or a fault that rendering again would not mend.
    FAILED = "failed"


TERMINAL = frozenset({JobState.DONE, JobState.STOPPED, JobState.CANCELLED, JobState.FAILED})

NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset(
        {JobState.RUNNING, JobState.PAUSED, JobState.CANCELLING, JobState.STOPPING}
    ),
    JobState.RUNNING: frozenset(
        {JobState.PAUSED, JobState.FINISHING, JobState.CANCELLING, JobState.STOPPING}
    ),
    JobState.PAUSED: frozenset(
        {
            JobState.WAITING,
            JobState.RUNNING,
            JobState.FINISHING,
            JobState.CANCELLING,
            JobState.STOPPING,
        }
    ),
    JobState.FINISHING: frozenset({JobState.DONE, JobState.STOPPED, JobState.FAILED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.STOPPING: frozenset({JobState.STOPPED, JobState.DONE, JobState.FAILED}),
    JobState.DONE: frozenset(),
    JobState.STOPPED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.FAILED: frozenset(),
}


def state_of(
    queue_state: str, outcome: str, *, started: bool, in_flight: int, accounted: bool
) -> JobState:
    """The user's word for what the queue holds (its `state`, and how a closed job ended)."""
    if outcome:
        return JobState(outcome)
    if queue_state == "cancel":
        return JobState.CANCELLING
    if queue_state == "stop":
        return JobState.STOPPING
    if queue_state == "fin" or accounted:
        return JobState.FINISHING
    if queue_state == "pause":
        return JobState.PAUSED
    return JobState.RUNNING if started or in_flight else JobState.WAITING
