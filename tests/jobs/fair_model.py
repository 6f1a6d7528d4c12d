"""Whose unit is next, in plain Python: lanes that age, tenants by virtual time, jobs by age."""

import math
from dataclasses import dataclass, field

AGE_MS = 300_000


@dataclass
class FairJob:
    """A job of single images: how many were never handed out, how many came back."""

    name: str
    tenant: str
    priority: int
    cost: float
    fresh: int
    #: Images that are not done.
    left: int
    engine: str = "engine"
    back: int = 0
    runs: bool = True


@dataclass
class Lane:
    """A priority of an engine: places of tenants, and since when it was passed over."""

    #: Tenant -> its place, as far as the lane has looked; it may have more elsewhere.
    place: dict[str, float] = field(default_factory=dict)
    #: Tenant -> what its virtual time lacks to its place.
    offset: dict[str, float] = field(default_factory=dict)
    #: Tenant that is away -> both.
    parked: dict[str, tuple[float, float]] = field(default_factory=dict)
    clock: float = 0.0
    #: What the last unit cost; where the clock was at the last marks, and when.
    step: float = 0.0
    mark: float | None = None
    before: float | None = None
    marked: int | None = None
    since: int = 0

    def reach(self) -> float:
        """How far ahead of the clock what a tenant has elsewhere may put it."""
        return math.inf if self.before is None else max(self.clock - self.before, 2 * self.step)


@dataclass
class FairModel:
    """The lanes of all engines; every method is called beside the queue's, at the same time."""

    now: int
    jobs: dict[str, FairJob] = field(default_factory=dict)
    lanes: dict[tuple[int, str], Lane] = field(default_factory=dict)
    #: Tenant -> its virtual time: device-seconds over weight, on all engines together.
    time: dict[str, float] = field(default_factory=dict)
    weight: dict[str, float] = field(default_factory=dict)
    cap: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    #: Jobs that are listed in their lane, by age; one leaves when a claim finds nothing in it.
    listed: list[FairJob] = field(default_factory=list)

    def submit(self, job: FairJob, weight: float, cap: int) -> None:
        self.jobs[job.name] = job
        self.weight[job.tenant], self.cap[job.tenant] = weight, cap
        self.enter(job)

    def lane_of(self, job: FairJob) -> Lane:
        return self.lanes.setdefault((job.priority, job.engine), Lane())

    def enter(self, job: FairJob) -> None:
        if job in self.listed or not job.runs:
            return
        self.listed.append(job)
        names = list(self.jobs)
        self.listed.sort(key=lambda one: names.index(one.name))
        lane, tenant = self.lane_of(job), job.tenant
        if tenant in lane.place:
            return
        if not lane.place:
            lane.since = self.now
        level = (lane.clock - self.time.get(tenant, 0.0), lane.clock)
        lane.offset[tenant], place = lane.parked.pop(tenant, level)
        lane.place[tenant] = max(place, lane.clock)

    def leave(self, job: FairJob) -> None:
        if job in self.listed:
            self.listed.remove(job)
        lane, tenant = self.lane_of(job), job.tenant
        if tenant in lane.place and not any(_place(one) == _place(job) for one in self.listed):
            lane.parked[tenant] = (lane.offset.pop(tenant), lane.place.pop(tenant))

    def claim(self, engine: str, want: int) -> list[str]:
        """The jobs of the next units, in the order in which they are handed out."""
        out: list[str] = []
        spent: set[int] = set()
        while len(out) < want:
            ranks = {
                p: p + (self.now - one.since) // AGE_MS
                for (p, of), one in self.lanes.items()
                if of == engine and one.place
            }
            open_ones = [p for p in ranks if p not in spent]
            if not open_ones:
                break
            priority = min(open_ones, key=lambda p: (-ranks[p], p))
            lane = self.lanes[priority, engine]
            tenant = self.next_tenant(lane)
            if tenant is None:
                spent.add(priority)
                continue
            job = next(j for j in self.listed if _place(j) == (tenant, priority, engine))
            if not job.back and not job.fresh:
                self.leave(job)
                continue
            job.back, job.fresh = (job.back - 1, job.fresh) if job.back else (0, job.fresh - 1)
            self.held[tenant] = self.held.get(tenant, 0) + 1
            self.charge(lane, tenant, job.cost / self.weight[tenant])
            out.append(job.name)
        return out

    def next_tenant(self, lane: Lane) -> str | None:
        """The tenant in front, once nobody in front of it has more elsewhere than was known."""
        free = [t for t in lane.place if not self.cap[t] or self.held.get(t, 0) < self.cap[t]]
        looked: dict[str, float] = {}
        while free:
            first = min(free, key=lambda one: (looked.get(one, lane.place[one]), one))
            if first in looked:
                lane.place |= looked
                return first
            place, whole = lane.place[first], self.time.get(first, 0.0) + lane.offset[first]
            most = max(place, lane.clock + lane.reach())
            looked[first] = max(min(whole, most), min(place, lane.clock))
            lane.offset[first] = looked[first] - self.time.get(first, 0.0)
        return None

    def charge(self, lane: Lane, tenant: str, more: float) -> None:
        lane.clock, lane.step, lane.since = lane.place[tenant], more, self.now
        if lane.marked is None or not 0 <= self.now - lane.marked < AGE_MS:
            lane.before, lane.mark, lane.marked = lane.mark, lane.clock, self.now
        lane.place[tenant] += more
        self.time[tenant] = self.time.get(tenant, 0.0) + more

    def correct(self, job: FairJob, seconds: float) -> None:
        """The device spent so many seconds on a unit that was charged as estimated."""
        lane, more = self.lane_of(job), (seconds - job.cost) / self.weight[job.tenant]
        self.time[job.tenant] += more
        if job.tenant in lane.place:
            lane.place[job.tenant] += more
            if more and len(lane.place) == 1:
                lane.clock = lane.place[job.tenant]
        elif job.tenant in lane.parked:
            offset, place = lane.parked[job.tenant]
            lane.parked[job.tenant] = (offset, place + more)

    def done(self, name: str, seconds: float) -> None:
        job = self.jobs[name]
        self.held[job.tenant] -= 1
        self.correct(job, seconds)
        job.left -= 1
        if not job.left:
            self.leave(job)
            job.runs = False

    def release(self, name: str) -> None:
        job = self.jobs[name]
        self.held[job.tenant] -= 1
        self.correct(job, 0.0)
        job.back += 1
        self.enter(job)

    def state(self, name: str, runs: bool) -> None:
        job = self.jobs[name]
        if job.runs != runs:
            job.runs = runs
            (self.enter if runs else self.leave)(job)

    def rank(self, name: str, priority: int) -> None:
        job = self.jobs[name]
        if job.priority != priority:
            self.leave(job)
            job.priority = priority
            self.enter(job)


def _place(job: FairJob) -> tuple[str, int, str]:
    return job.tenant, job.priority, job.engine
