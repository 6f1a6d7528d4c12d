"""What to tell the queue about a job found in the store, after Redis was lost: a pure plan."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from jobs.errors import InvalidInput
from jobs.queue_values import DoneUnit, QueueJob, checked_range, checked_unit

#: (kind, unit, news): failed images of a done unit, why an image is dead, nothing for a gap.
Step = tuple[Literal["done", "dead", "gap"], str, str | int]

_PART = re.compile(r"(\d+):(\d+)-(\d+)")


def restore_plan(
    job: QueueJob, done_units: Iterable[DoneUnit], dead: Mapping[str, str]
) -> list[Step]:
    """Steps that account for every image of the shards touched; untouched ones are not named.

    A whole shard beats its parts, an outer part the ones within it: each image is booked once.
    What lies between the parts of a shard is rendered again ("gap").
    """
    steps: list[Step] = [("done", one.unit, one.failed) for one in done_units]
    steps += [("dead", unit, reason) for unit, reason in dead.items()]
    shards: dict[int, list[tuple[int, int, Step]]] = {}
    for step in steps:
        shard, first, stop = _span(job, step[1])
        if step[0] == "done":
            checked_range(int(step[2]), 0, stop - first, f"failed images of {step[1]}")
        shards.setdefault(shard, []).append((first, stop, step))
    return [step for shard in sorted(shards) for step in _shard_plan(job, shard, shards[shard])]


def _shard_plan(job: QueueJob, shard: int, found: list[tuple[int, int, Step]]) -> list[Step]:
    at, end = shard * job.shard_images, min((shard + 1) * job.shard_images, job.images)
    plan: list[Step] = []
    # Widest first among those that begin together; on a tie the picture beats the obituary.
    for first, stop, step in sorted(found, key=lambda one: (one[0], -one[1], one[2][0] != "done")):
        if first < at:
            continue
        if first > at:
            plan.append(("gap", f"{shard}:{at}-{first}", ""))
        plan.append(step)
        at = stop
    if at < end:
        plan.append(("gap", f"{shard}:{at}-{end}", ""))
    return plan


def _span(job: QueueJob, unit: str) -> tuple[int, int, int]:
    part = _PART.fullmatch(checked_unit(unit))
    shard, first, stop = (int(one) for one in part.groups()) if part else (int(unit), 0, 0)
    low, high = shard * job.shard_images, min((shard + 1) * job.shard_images, job.images)
    if part is None:
        first, stop = low, high
    if not low <= first < stop <= high:
        raise InvalidInput(f"{unit} is no unit of the job", where=job.job_id)
    return shard, first, stop
