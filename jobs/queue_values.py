"""What goes into the shard queue and what comes out of it: frozen values that know no Redis."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.errors import InvalidInput
from jobs.limits import UNLIMITED, Limits

SubmitOutcome = Literal["ok", "duplicate", "conflict", "full"]
RenewAnswer = Literal["ok", "pause", "cancel", "lost"]
DoneAnswer = Literal["ok", "late", "duplicate", "fenced", "superseded", "cancelled", "unknown"]
FailAnswer = Literal["released", "retry", "split", "dead", "lost", "cancelled"]
FinishAnswer = Literal["ok", "duplicate", "conflict", "not_ready", "unknown"]
#: Who decides between two finishers: the store (`If-None-Match` works) or Redis (it does not).
Arbiter = Literal["s3", "redis"]
WantedState = Literal["run", "pause", "cancel"]
#: `stopped`: at a limit of its budget.
Outcome = Literal["done", "stopped", "failed", "cancelled"]

#: One bit per shard: 8 million of them are a megabyte of Redis.
MAX_SHARDS = 8_000_000
#: Beyond this the JSON of a claim would round indexes.
MAX_IMAGES = 10**13
MAX_LEASE_MS = 600_000

# No "|" and no space: the queue joins names with them.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=:/-]{0,199}")
_UNIT = re.compile(r"\d{1,8}(:\d{1,14}-\d{1,14})?")


def checked_name(value: str, where: str) -> str:
    """`value` if it may be part of a key; raises InvalidInput otherwise."""
    if not _NAME.fullmatch(value):
        raise InvalidInput(
            f"{value[:40]!r} may not name anything in the queue",
            where=where,
            remedy="1-200 characters of A-Z a-z 0-9 . _ @ + = : / -, a letter or digit first",
        )
    return value


def checked_unit(value: str) -> str:
    """`value` if it reads like a unit, "17" or "17:17000-17500"; raises InvalidInput otherwise."""
    if not _UNIT.fullmatch(value):
        raise InvalidInput(f"{value[:40]!r} is no unit", where="unit")
    return value


def checked_range(value: float, low: float, high: float, where: str) -> None:
    """Raises InvalidInput unless `low <= value <= high` (which no NaN is)."""
    if not low <= value <= high:
        raise InvalidInput(f"{value} is not within {low} and {high}", where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRequest:
    """All the queue knows of a job: sizes and order of service, never a row or a prompt."""

    job_id: str
    tenant: str
    engine_key: str
    images: int
    shard_images: int
    #: Digest of the whole job: the same id or key with another digest is a conflict.
    spec_sha256: str
    #: The client's own key: the same one again within seven days is the same job.
    idempotency_key: str | None = None
    #: 0 to 9; 9 is served first.
    priority: int = 4
    #: Process deaths on one shard before it is split, and on a single image before it is dead.
    max_attempts: int = 3
    #: Estimated device-seconds per image: what a claim charges its tenant until it is done.
    unit_cost: float = 1.0
    #: Images in one GPU batch: how many are suspect when a process dies at an index.
    batch_images: int = 8
    #: The tenant's share of devices, the units it may hold at once (0: any number), and the jobs
    #: it may have open (None: the queue's own limit).
    tenant_weight: float = 1.0
    tenant_cap: int = 0
    tenant_jobs: int | None = None
    #: Images that may fail before the job is stopped; None: any number.
    max_failed: int | None = None
    limits: Limits = UNLIMITED

    def __post_init__(self) -> None:
        for name in ("job_id", "tenant", "engine_key", "spec_sha256"):
            checked_name(getattr(self, name), name)
        checked_range(self.images, 1, MAX_IMAGES, "images")
        checked_range(self.shard_images, 1, self.images + 10_000, "shard_images")
        checked_range(self.shards, 1, MAX_SHARDS, "shards")
        checked_range(self.priority, 0, 9, "priority")
        checked_range(self.max_attempts, 1, 100, "max_attempts")
        checked_range(self.batch_images, 1, 10_000, "batch_images")
        checked_range(self.unit_cost, 1e-9, 1e6, "unit_cost")
        checked_range(self.tenant_weight, 1e-6, 1e6, "tenant_weight")
        checked_range(self.tenant_cap, 0, 1_000_000, "tenant_cap")
        checked_range(self.tenant_jobs or 0, 0, 1_000_000, "tenant_jobs")
        if self.max_failed is not None:
            checked_range(self.max_failed, 0, MAX_IMAGES, "max_failed")

    @property
    def shards(self) -> int:
        """How many shards the images fill."""
        return math.ceil(self.images / self.shard_images)


@dataclass(frozen=True, slots=True)
class SubmitReply:
    """`ok`, `duplicate` and `conflict` name the job that is there; `full` names none."""

    outcome: SubmitOutcome
    job_id: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to render images `first` up to `stop` of a job until the lease runs out."""

    job_id: str
    unit: str
    first: int
    stop: int
    #: The fence: a stale one commits nothing. Rises with every lease handed out.
    token: str
    #: 1 the first time; one more for each process that died on this unit.
    attempt: int
    #: A whole shard, or a part that was made so that several end the job together.
    sound: bool = True

    @property
    def images(self) -> int:
        """How many images it covers."""
        return self.stop - self.first

    @property
    def suspect(self) -> bool:
        """Whether a process died on it before, or on the shard that it is a part of."""
        return self.attempt > 1 or not self.sound


@dataclass(frozen=True, slots=True)
class DoneUnit:
    """A unit whose output is in the store; `failed` of its images are rows without a picture."""

    unit: str
    failed: int = 0
    #: What the device spent on it, where that counts.
    device_ms: int = 0


@dataclass(frozen=True, slots=True)
class PoolChange:
    """A renderer that was `started`, is to become another (`refitted`), or to leave (`drained`)."""

    what: str
    renderer: str
    #: Milliseconds since 1970 (UTC), by the scheduler's clock.
    at_ms: int


@dataclass(frozen=True, slots=True)
class QueueJob:
    """A job as the queue holds it. Times are milliseconds since 1970, None: not yet."""

    job_id: str
    tenant: str
    engine_key: str
    #: run, pause, cancel, stop (too many images failed, or a limit), fin (all are accounted for),
    #: closed.
    state: str
    #: done, stopped, failed or cancelled once closed, else "".
    outcome: str
    priority: int
    images: int
    shard_images: int
    shards: int
    #: Next shard that was never handed out.
    cursor: int
    #: Pictures made, rows that failed, images given up after `max_attempts` process deaths.
    done_images: int
    failed_images: int
    dead_images: int
    units_in_flight: int
    images_in_flight: int
    device_ms: int
    unit_cost: float
    spec_sha256: str
    restoring: bool
    submitted_ms: int
    first_claim_ms: int | None
    last_progress_ms: int | None
    finished_ms: int | None
    #: Process deaths on a single image before it is given up.
    max_attempts: int = 0
    #: Images that may fail before it is stopped; None: any number.
    max_failed: int | None = None
    #: Why it ended as it did; empty where nothing is to be said.
    reason: str = ""
    #: Of a closed job: the number of its latest later round, 0: none.
    round: int = 0
    #: Of a cancelled job: what is done of it is to be deleted.
    discard: bool = False
    #: Images of which the device's time is in `device_ms`: not those that were adopted or restored.
    timed_images: int = 0
    limits: Limits = UNLIMITED
    #: The limit that stopped it, if one did.
    limit: str = ""
    #: Milliseconds of devices on units that were given back, or whose process died: as told last.
    wasted_ms: int = 0

    @property
    def spent_ms(self) -> int:
        """Milliseconds of devices: of what came to nothing too, and of before the queue knew it."""
        return self.limits.before_ms + self.device_ms + self.wasted_ms

    @property
    def image_cost(self) -> float:
        """Device-seconds an image: measured where any were, else as estimated at submission."""
        if not self.timed_images:
            return self.unit_cost
        return self.device_ms / 1000 / self.timed_images

    @property
    def images_waiting(self) -> int:
        """Images that nobody renders yet."""
        settled = self.done_images + self.failed_images + self.dead_images
        return max(0, self.images - settled - self.images_in_flight)

    @property
    def accounted(self) -> bool:
        """Whether every image is done, failed or dead."""
        return self.done_images + self.failed_images + self.dead_images >= self.images


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs, newest first; `cursor` asks for the next page, None: this was the last."""

    jobs: list[QueueJob]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class EngineBacklog:
    """What waits for one engine; paused, cancelled and finished jobs do not count as waiting."""

    engine_key: str
    jobs: int
    images_waiting: int
    units_in_flight: int
    #: Estimated device-seconds of the images waiting.
    cost_waiting: float
    #: The highest priority of a job with waiting images, -1: none waits.
    priority: int


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A unit in flight: who holds it until when, and its first unfinished image (None: no news)."""

    job_id: str
    unit: str
    worker: str
    token: str
    deadline_ms: int
    progress: int | None


@dataclass(frozen=True, slots=True)
class RendererRecord:
    """A living renderer and what it last said about itself."""

    worker: str
    beat_ms: int
    info: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pieces:
    """What became of the shards that were split, and of the images given up.

    A reader of the dataset takes the parts of a split shard and ignores a whole one beside them.
    """

    #: Shard -> images of it that are not settled yet (0: all are).
    split: Mapping[int, int]
    #: Parts done, as units.
    parts: frozenset[str]
    #: "first-stop" -> why.
    dead: Mapping[str, str]
