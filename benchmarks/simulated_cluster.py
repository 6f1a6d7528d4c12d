"""A cluster in virtual time: real queue, real policy and loop, renderers that only sleep."""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import astuple, dataclass, field

from benchmarks.fleet import digest
from benchmarks.simulated_pool import (
    LOAD_S,
    REFIT_S,
    SimulatedPool,
    beat_of,
    simulated_recipes,
    simulated_scheduler,
)
from jobs.job import choose_shard_images
from jobs.queue_values import Lease, SubmitRequest
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue

#: Virtual seconds between two steps of the loop: in truth it steps twice a second.
STEP_S = 5.0
#: How fine it is counted who had the devices.
BUCKET_S = 60.0
#: There is a backlog where the whole pool would work so long on what waits.
BACKLOG_S = 300.0
LEASE_MS = 600_000
_EPOCH_MS = 1_750_000_000_000


@dataclass
class SimulatedRenderer:
    """One that loads, sleeps through shards, becomes another engine's, and leaves."""

    name: str
    engine: str
    state: str = "loading"
    draining: bool = False
    refitted: bool = False
    #: The engine that it has next; its name for the queue is another with each.
    becomes: str = ""
    life: int = 0
    claims: int = 0

    @property
    def worker(self) -> str:
        """Its name for the queue."""
        return f"{self.name}.{self.life}"


@dataclass
class Spell:
    """Device-seconds of a spell: of all slots, rendering, loading, and idle beside units that
    wait (of idle devices no more than there are such units)."""

    slots_s: float = 0.0
    busy_s: float = 0.0
    loading_s: float = 0.0
    idle_s: float = 0.0

    @property
    def loading_share(self) -> float:
        """Loading, of what devices did."""
        return self.loading_s / max(1e-9, self.busy_s + self.loading_s)

    @property
    def idle_share(self) -> float:
        """Idle while units waited, of all slots."""
        return self.idle_s / max(1e-9, self.slots_s)

    def __add__(self, other: "Spell") -> "Spell":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Spell(*(mine + theirs for mine, theirs in pairs))


@dataclass
class Ledger:
    """Where device time went, and how long jobs waited."""

    #: Tenant -> bucket -> device-seconds.
    spent: dict[str, dict[int, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    #: While more waited than the whole pool does in `BACKLOG_S`, and while less did.
    crowded: Spell = field(default_factory=Spell)
    calm: Spell = field(default_factory=Spell)
    loads: int = 0
    refits: int = 0
    cycles: int = 0
    #: Job -> when it was submitted, and how long until its first unit was claimed.
    submitted: dict[str, float] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)


class SimulatedCluster:
    """Drives everything from one heap of events; `now` is virtual seconds."""

    def __init__(
        self, url: str, size: int, step_s: float = STEP_S, *, renewing: bool = True
    ) -> None:
        self.now, self.size, self._step_s = 0.0, size, step_s
        self._renewing = renewing
        self.random = random.Random(7)
        self.recipes = list(simulated_recipes())
        #: Device-seconds an image, by engine: as on different models and sizes.
        self.cost = {key: 0.08 + 0.14 * n / 49 for n, key in enumerate(self.recipes)}
        self.queue = ShardQueue(control_client(url), clock=lambda: _EPOCH_MS + int(self.now * 1e3))
        self.pool = SimulatedPool(size, self._start, self._drain, self._refit)
        self.scheduler = simulated_scheduler(self.queue, self.pool, lambda: self.now)
        self.ledger = Ledger()
        #: Units that nobody holds, and the device-seconds that they are, as the loop last saw them.
        self._waiting, self._waiting_s = 0, 0.0
        self.tenants: dict[str, str] = {}
        self._renderers: dict[str, SimulatedRenderer] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._states: Counter[str] = Counter()
        self.at(0.0, self._step)

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Do it so many virtual seconds from now."""
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, do))

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] < end:
            at, _, do = heapq.heappop(self._events)
            self._pass(at)
            do()
        self._pass(end)

    def submit(
        self, tenant: str, engine: str, images: int, *, priority: int = 4, weight: float = 1.0
    ) -> str:
        """A job as the API would submit it; its id."""
        number = len(self.ledger.submitted)
        name = (digest("job", number) * 2)[:26]
        size = choose_shard_images(images, 8)
        request = SubmitRequest(
            job_id=name,
            tenant=tenant,
            engine_key=engine,
            images=images,
            shard_images=size,
            spec_sha256=digest("spec", number),
            priority=priority,
            unit_cost=self.cost[engine],
            tenant_weight=weight,
        )
        reply = self.queue.submit(request)
        if reply.outcome != "ok":
            raise RuntimeError(f"the queue answered {reply.outcome}")
        self.ledger.submitted[name] = self.now
        self.tenants[name] = tenant
        for one in self._renderers.values():
            if one.engine == engine and one.state == "idle":
                # They look every second or so.
                self.at(self.random.uniform(0, 1), lambda one=one: self._look(one))  # type: ignore[misc]
        return name

    def _pass(self, at: float) -> None:
        step, self.now = at - self.now, at
        crowded = self._waiting_s > BACKLOG_S * self.size
        spell = self.ledger.crowded if crowded else self.ledger.calm
        busy, loading = self._states["rendering"], self._states["loading"]
        spell.slots_s += step * self.size
        spell.busy_s += step * busy
        spell.loading_s += step * loading
        spell.idle_s += step * min(self.size - busy - loading, self._waiting)

    def _step(self) -> None:
        self.queue.reap()
        self.scheduler.step()
        works = [work for one in self.scheduler.seen.demands for work in one.work]
        self._waiting = sum(work.units - work.in_flight for work in works)
        self._waiting_s = sum(
            work.cost_s * (1 - work.in_flight / work.units) for work in works if work.units
        )
        for name in self.queue.finishing():
            self.queue.finish(name, "done")
        self.at(self._step_s, self._step)

    def _set(self, one: SimulatedRenderer, state: str) -> None:
        self._states[one.state] -= 1
        self._states[state] += 1
        one.state = state
        self._beat(one)

    def _beat(self, one: SimulatedRenderer) -> None:
        beat = beat_of(
            one.name,
            one.engine,
            # It holds a unit until it asks for the next.
            "rendering" if one.state == "between" else one.state,
            draining=one.draining,
            refitted=one.refitted,
            becomes=one.becomes,
        )
        # A real one beats every 15 s; here it speaks when there is news.
        self.queue.heartbeat(one.worker, beat, ttl_ms=LEASE_MS * 1_000)

    def _start(self, name: str, engine: str) -> None:
        one = self._renderers[name] = SimulatedRenderer(name, engine)
        self._states["loading"] += 1
        self.ledger.loads += 1
        self._set(one, "loading")
        self.at(LOAD_S, lambda: self._loaded(one))

    def _drain(self, name: str) -> None:
        one = self._renderers[name]
        if one.draining:
            return
        one.draining = True
        self._set(one, one.state)
        if one.state == "idle":
            self._look(one)

    def _refit(self, name: str, engine: str) -> None:
        one = self._renderers[name]
        one.becomes = engine
        self._beat(one)
        if one.state == "idle":
            self._look(one)

    def _become(self, one: SimulatedRenderer) -> None:
        self.queue.leave(one.worker)
        one.engine, one.becomes, one.refitted, one.life = one.becomes, "", True, one.life + 1
        one.claims = 0
        self.ledger.refits += 1
        self._set(one, "loading")
        self.at(REFIT_S, lambda: self._loaded(one))

    def _loaded(self, one: SimulatedRenderer) -> None:
        self._between(one)
        self._look(one)

    def _between(self, one: SimulatedRenderer) -> None:
        self._states[one.state] -= 1
        self._states["between"] += 1
        one.state = "between"

    def _look(self, one: SimulatedRenderer) -> None:
        """Claim, or leave or become another where it was told to."""
        if one.name not in self._renderers or one.state in ("rendering", "loading"):
            return
        if one.draining:
            self._states[one.state] -= 1
            del self._renderers[one.name], self.pool.present[one.name]
            self.queue.leave(one.worker)
            return
        if one.becomes:
            self._become(one)
            return
        one.claims += 1
        nonce = f"n{one.claims}"
        found = self.queue.claim(one.worker, nonce, one.engine, 32, LEASE_MS, 16, ahead=True)
        if not found:
            if one.state != "idle":
                self._set(one, "idle")
            return
        if one.state == "idle" or one.claims == 1:
            self._set(one, "rendering")
        else:
            self._states[one.state] -= 1
            self._states["rendering"] += 1
            one.state = "rendering"
        self._render(one, found)

    def _render(self, one: SimulatedRenderer, found: list[Lease]) -> None:
        """Sleep through the first unit; one renewal stands for those of every 15 seconds."""
        lease, rest = found[0], found[1:]
        job = lease.job_id
        self.ledger.started.setdefault(job, self.now - self.ledger.submitted[job])
        seconds = lease.images * self.cost[one.engine] * self.random.uniform(0.95, 1.05)
        began = self.now

        def renew() -> None:
            self.queue.renew(one.worker, found, LEASE_MS, [lease.first, *[None] * len(rest)])

        def done() -> None:
            answer = self.queue.done(job, lease.unit, lease.token, 0, round(seconds * 1e3))
            if answer != "ok":
                raise RuntimeError(f"done was answered {answer}")
            self.ledger.cycles += 1
            self._book(job, began, seconds)
            if rest:
                self._render(one, rest)
            else:
                self._between(one)
                self._look(one)

        if self._renewing:
            self.at(seconds / 2, renew)
        self.at(seconds, done)

    def _book(self, job: str, began: float, seconds: float) -> None:
        buckets = self.ledger.spent[self.tenants[job]]
        at, end = began, began + seconds
        while at < end:
            bucket = int(at // BUCKET_S)
            until = min(end, (bucket + 1) * BUCKET_S)
            buckets[bucket] += until - at
            at = until
