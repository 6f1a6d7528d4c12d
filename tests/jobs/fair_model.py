"""Whose unit is next, in plain Python: lanes that age, tenants by virtual time, jobs by age."""

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
    back: int = 0
    runs: bool = True


@dataclass
class Lane:
    """A priority: tenants by virtual time, and since when it was passed over."""

    time: dict[str, float] = field(default_factory=dict)
    parked: dict[str, float] = field(default_factory=dict)
    clock: float = 0.0
    since: int = 0


@dataclass
class FairModel:
    """One engine's lanes; every method is called beside the queue's, at the same time."""

    now: int
    jobs: dict[str, FairJob] = field(default_factory=dict)
    lanes: dict[int, Lane] = field(default_factory=lambda: {p: Lane() for p in range(10)})
    weight: dict[str, float] = field(default_factory=dict)
    cap: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    #: Jobs that are listed in their lane, by age; one leaves when a claim finds nothing in it.
    listed: list[FairJob] = field(default_factory=list)

    def submit(self, job: FairJob, weight: float, cap: int) -> None:
        self.jobs[job.name] = job
        self.weight[job.tenant], self.cap[job.tenant] = weight, cap
        self.enter(job)

    def enter(self, job: FairJob) -> None:
        if job in self.listed or not job.runs:
            return
        self.listed.append(job)
        names = list(self.jobs)
        self.listed.sort(key=lambda one: names.index(one.name))
        lane = self.lanes[job.priority]
        if job.tenant in lane.time:
            return
        if not lane.time:
            lane.since = self.now
        lane.time[job.tenant] = max(lane.parked.get(job.tenant, 0.0), lane.clock)

    def leave(self, job: FairJob) -> None:
        if job in self.listed:
            self.listed.remove(job)
        lane = self.lanes[job.priority]
        rest = [one for one in self.listed if (one.tenant, one.priority) == _place(job)]
        if not rest and job.tenant in lane.time:
            lane.parked[job.tenant] = lane.time.pop(job.tenant)

    def claim(self, want: int) -> list[str]:
        """The jobs of the next units, in the order in which they are handed out."""
        out: list[str] = []
        spent: set[int] = set()
        while len(out) < want:
            ranks = {
                p: p + (self.now - one.since) // AGE_MS for p, one in self.lanes.items() if one.time
            }
            open_ones = [p for p in ranks if p not in spent]
            if not open_ones:
                break
            priority = min(open_ones, key=lambda p: (-ranks[p], p))
            lane = self.lanes[priority]
            free = [t for t in lane.time if not self.cap[t] or self.held.get(t, 0) < self.cap[t]]
            if not free:
                spent.add(priority)
                continue
            tenant = min(free, key=lambda one: (lane.time[one], one))
            job = next(j for j in self.listed if _place(j) == (tenant, priority))
            if not job.back and not job.fresh:
                self.leave(job)
                continue
            job.back, job.fresh = (job.back - 1, job.fresh) if job.back else (0, job.fresh - 1)
            self.held[tenant] = self.held.get(tenant, 0) + 1
            lane.clock, lane.since = lane.time[tenant], self.now
            lane.time[tenant] += job.cost / self.weight[tenant]
            out.append(job.name)
        return out

    def correct(self, job: FairJob, seconds: float) -> None:
        """The device spent so many seconds on a unit that was charged as estimated."""
        lane, more = self.lanes[job.priority], (seconds - job.cost) / self.weight[job.tenant]
        if not more:
            return
        if job.tenant in lane.time:
            lane.time[job.tenant] += more
            if len(lane.time) == 1:
                lane.clock = lane.time[job.tenant]
        elif job.tenant in lane.parked:
            lane.parked[job.tenant] += more

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


def _place(job: FairJob) -> tuple[str, int]:
    return job.tenant, job.priority
