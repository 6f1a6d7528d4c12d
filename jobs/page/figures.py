"""What the timing page draws, as plain numbers: stages, their share, and the rate over time."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.api.services import Services
from jobs.errors import NotFound
from jobs.items import manifests_among
from jobs.job import JobView
from jobs.manifest import Manifest
from jobs.results import read_timing
from jobs.rounds import Accepted
from jobs.states import JobState
from jobs.timing import Timing, timing_of

#: Units whose manifests are read for one page; of a larger job, every n-th.
UNITS = 200
#: Points of the curve of the rate.
POINTS = 60
#: Stage -> its title, whether the device works in it, and for which bottleneck it stands.
STAGES = {
    "text_encoding": ("Text", True, "device"),
    "denoising": ("Denoising", True, "device"),
    "decode": ("Decoding", True, "device"),
    "transfer": ("Transfer", True, "device"),
    "encode": ("Encoding", False, "encode"),
    "upload": ("Upload", False, "store"),
}


@dataclass(frozen=True, slots=True)
class StageBar:
    """One stage of an image; milliseconds, and widths from 0 to 1 of the longest mean."""

    title: str
    device: bool
    slowest: bool
    mean_ms: float
    p50_ms: float | None
    p95_ms: float | None
    width: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the page shows; `step`: every how many-th unit was read."""

    timing: Timing
    bars: tuple[StageBar, ...]
    rates: tuple[float, ...]
    #: When the curve begins and ends, in milliseconds since 1970.
    first_ms: int
    last_ms: int
    step: int
    shards: int

    @property
    def peak(self) -> float:
        """The highest rate, in images a second."""
        return max(self.rates, default=0.0)


def figures_of(services: Services, accepted: Accepted, view: JobView) -> Figures | None:
    """The figures of a job, or of a retry alone, as far as it is; None: no unit is committed."""
    job, again = accepted.job, accepted.again
    layout = services.views.layout(job.id)
    first, shards = (again.first_shard, again.shards) if again else (0, job.shards)
    step = max(1, -(-shards // UNITS))
    manifests = manifests_among(services.store, layout, range(first, first + shards, step))
    if not manifests:
        return None
    if again:
        job = job.model_copy(update={"submitted_ms": again.created_ms})
    timing = timing_of(job, manifests)
    if view.state == JobState.DONE and not again:
        try:
            timing = read_timing(services.store, layout)
        except NotFound:
            # A retry of it has ended, and the job itself never did.
            pass
    first_ms = min(_start(one) for one in manifests)
    last_ms = max(one.times.finished_ms for one in manifests)
    rates = rates_of(manifests, first_ms, last_ms, step)
    return Figures(timing, bars_of(timing), tuple(rates), first_ms, last_ms, step, shards)


def bars_of(timing: Timing) -> tuple[StageBar, ...]:
    """The stages of an image in their order."""
    known = {name: timing.stages[name] for name in STAGES if name in timing.stages}
    means = {name: one.sum_ms / one.count if one.count else 0.0 for name, one in known.items()}
    longest = max(means.values(), default=0.0) or 1.0
    slowest = _slowest(timing, means)
    return tuple(
        StageBar(
            STAGES[name][0],
            STAGES[name][1],
            name == slowest,
            means[name],
            one.p50_ms,
            one.p95_ms,
            means[name] / longest,
        )
        for name, one in known.items()
    )


def rates_of(
    manifests: Sequence[Manifest], first_ms: int, last_ms: int, step: int, points: int = POINTS
) -> list[float]:
    """Images a second in equal stretches of time, each unit's spread evenly over its time."""
    width = max(1.0, (last_ms - first_ms) / points)
    sums = [0.0] * points
    for one in manifests:
        begin, end = _start(one) - first_ms, one.times.finished_ms - first_ms
        length = max(1.0, end - begin)
        for point in range(points):
            inside = min(end, (point + 1) * width) - max(begin, point * width)
            sums[point] += max(0.0, inside) / length * one.count
    return [step * images * 1_000 / width for images in sums]


def _start(one: Manifest) -> int:
    """When a unit's first image was begun; a unit of an adopted tar tells only its end."""
    return min(one.times.started_ms or one.times.finished_ms, one.times.finished_ms)


def _slowest(timing: Timing, means: dict[str, float]) -> str:
    """The stage that stands for what held the job up: the longest of its kind."""
    held = timing.bottleneck.stage if timing.bottleneck else "unknown"
    kind = {name: mean for name, mean in means.items() if STAGES[name][2] == held}
    return max(kind, key=lambda name: kind[name], default="")
