"""Where a job's time goes while it runs: the stages of its latest shards."""

from pydantic import Field

from jobs.bottleneck import Bottleneck
from jobs.items import manifests_of
from jobs.layout import JobLayout
from jobs.queue_values import QueueJob
from jobs.recipe import Frozen
from jobs.rounds import Accepted
from jobs.store import Store
from jobs.timing import StageTiming, timing_of

#: Shards that are looked at: enough for a split, few enough to ask again every few seconds.
LATEST = 16


class Stages(Frozen):
    """The stages of a job's latest shards; empty before one is committed."""

    id: str
    images: int = Field(default=0, description="Images that the figures rest on")
    stages: dict[str, StageTiming] = Field(
        default_factory=dict, description="Milliseconds by stage, as in `timing.json`"
    )
    bottleneck: Bottleneck | None = Field(
        default=None, description="What held them up; null before a shard is committed"
    )


def latest_stages(
    store: Store, layout: JobLayout, job_id: str, accepted: Accepted, record: QueueJob | None
) -> Stages:
    """The stages of the committed among the last shards that were handed out.

    `record`: the job as the queue holds it; where it does not, all its shards were handed out.
    """
    job, again = accepted.job, accepted.again
    first = again.first_shard if again else 0
    stop = first + (record.cursor if record else (again or job).shards)
    found = manifests_of(store, layout, range(max(first, stop - LATEST), stop))
    if not found:
        return Stages(id=job_id)
    timing = timing_of(job, found)
    return Stages(
        id=job_id,
        images=sum(one.count for one in found),
        stages=timing.stages,
        bottleneck=timing.bottleneck,
    )
