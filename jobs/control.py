"""Steering a job: in the queue, where it takes effect, and in the store, which outlives that."""

from typing import Literal

from pydantic import ValidationError

from jobs.budget import Budget
from jobs.errors import Conflict, NotFound
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.queue_values import WantedState
from jobs.recipe import Frozen
from jobs.shard_queue import ShardQueue
from jobs.specs import round_number
from jobs.store import Store


class Course(Frozen):
    """What a job was told last: `refused` where its submission found no room in the queue."""

    state: Literal["run", "pause", "cancel", "refused"] = "run"
    #: Of a cancelled job: what is done is deleted too.
    discard: bool = False


class Rank(Frozen):
    """The priority that a job was given after it was accepted."""

    priority: int


class Spent(Frozen):
    """Milliseconds of devices."""

    device_ms: int


def steer(
    queue: ShardQueue,
    store: Store,
    layout: JobLayout,
    queue_id: str,
    wanted: WantedState,
    *,
    discard: bool = False,
) -> str:
    """Let a job run, pause it or cancel it, so that a queue rebuilt from the store knows of it.

    Returns the state it is in now, or "unknown". Raises Conflict where it is being closed with
    what is done while `discard` asks for that to be deleted.
    """
    reached = queue.state(queue_id, wanted, discard=discard)
    if reached != wanted:
        return reached
    record = queue.job(queue_id)
    if discard and record is not None and not record.discard:
        raise Conflict(
            "the job is being closed with what is done of it",
            where=queue_id,
            remedy=f"when it is cancelled, delete {layout.root} in the store",
        )
    # After the queue, whose word decides, and before the answer: what was answered lasts.
    # The queue keeps a wish to delete, whatever is asked after it.
    discard = wanted == "cancel" and (discard or (record is not None and record.discard))
    write_course(store, layout, queue_id, Course(state=wanted, discard=discard))
    # Again: whoever reads the store back meanwhile may have told it what was written before.
    queue.state(queue_id, wanted, discard=discard)
    return reached


def rank(queue: ShardQueue, store: Store, layout: JobLayout, queue_id: str, priority: int) -> bool:
    """Serve a job with this priority from the next claim on; False if the queue has no such job."""
    if not queue.set_priority(queue_id, priority):
        return False
    data = Rank(priority=priority).model_dump_json().encode()
    _put(store, layout.control(round_number(queue_id), "priority"), data)
    # Again, for the same reason as in `steer`.
    queue.set_priority(queue_id, priority)
    return True


def write_course(store: Store, layout: JobLayout, queue_id: str, course: Course) -> None:
    """Write down what a job was told."""
    _put(store, _course_key(layout, queue_id), course.model_dump_json().encode())


def forget_course(store: Store, layout: JobLayout, queue_id: str) -> None:
    """It was told nothing after all."""
    store.delete([_course_key(layout, queue_id)])


def read_course(store: Store, layout: JobLayout, queue_id: str) -> Course:
    """What a job was told last; to run, where it was told nothing."""
    try:
        return Course.model_validate_json(store.get(_course_key(layout, queue_id)))
    except (NotFound, ValidationError):
        return Course()


def read_rank(store: Store, layout: JobLayout, queue_id: str) -> int | None:
    """The priority that a job was given later; None: its own."""
    key = layout.control(round_number(queue_id), "priority")
    try:
        return Rank.model_validate_json(store.get(key)).priority
    except (NotFound, ValidationError):
        return None


def write_budget(store: Store, layout: JobLayout, budget: Budget) -> None:
    """Write down the budget that a job has from now on."""
    _put(store, layout.control(0, "budget"), budget.model_dump_json().encode())


def read_budget(store: Store, layout: JobLayout, job: Job) -> Budget:
    """The budget of a job: the one that it was given last, or its own."""
    try:
        return Budget.model_validate_json(store.get(layout.control(0, "budget")))
    except (NotFound, ValidationError):
        return job.only()


def write_spent(store: Store, layout: JobLayout, device_ms: int) -> None:
    """Write down what a job had spent of devices when it was let go on beyond a limit.

    Manifests alone do not tell: of units that were given back there is none.
    """
    _put(store, layout.control(0, "spent"), Spent(device_ms=device_ms).model_dump_json().encode())


def read_spent(store: Store, layout: JobLayout) -> int:
    """The milliseconds of devices that were written down; 0 where none were."""
    try:
        return Spent.model_validate_json(store.get(layout.control(0, "spent"))).device_ms
    except (NotFound, ValidationError):
        return 0


def _course_key(layout: JobLayout, queue_id: str) -> str:
    return layout.control(round_number(queue_id), "state")


def _put(store: Store, key: str, data: bytes) -> None:
    store.put(key, data, content_type="application/json")
