"""One job of the shard queue in plain Python: what each op must answer, and what is left after."""

from dataclasses import dataclass, field
from itertools import pairwise

from jobs.queue_values import RenewAnswer

LEASE_MAX = 600_000
BACKOFF_MAX = 60_000


@dataclass
class Held:
    """A lease as the queue should have it."""

    token: str
    deadline: int
    progress: int | None = None
    ahead: bool = False


@dataclass
class JobModel:
    """Every unit is in one of: never offered, waiting, owners, done, dead, split."""

    images: int
    size: int
    max_attempts: int
    batch: int
    max_failed: int | None = None
    state: str = "run"
    #: Images without a picture in units that are done.
    failed: int = 0
    #: Shards handed out at least once.
    offered: set[int] = field(default_factory=set)
    #: Units to hand out again, and from when.
    waiting: dict[str, int] = field(default_factory=dict)
    owners: dict[str, Held] = field(default_factory=dict)
    crashes: dict[str, int] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    split: set[int] = field(default_factory=set)
    winners: dict[str, str] = field(default_factory=dict)
    #: Renderers at work, and the parts in which the last shards are handed out to them.
    working: int = 1
    tails: set[str] = field(default_factory=set)

    @property
    def shards(self) -> int:
        return -(-self.images // self.size)

    def span(self, unit: str) -> tuple[int, int, int]:
        """First image, end, shard."""
        shard, _, part = unit.partition(":")
        top = int(shard)
        if part:
            first, stop = part.split("-")
            return int(first), int(stop), top
        return top * self.size, min((top + 1) * self.size, self.images), top

    def length(self, unit: str) -> int:
        first, stop, _ = self.span(unit)
        return stop - first

    def settled(self) -> int:
        return sum(self.length(unit) for unit in self.done) + len(self.dead)

    def is_dead(self, unit: str) -> bool:
        first, stop, _ = self.span(unit)
        return stop - first == 1 and first in self.dead

    def fresh(self) -> set[str]:
        """Shards that were never handed out and are still to be made."""
        everything = {str(k) for k in range(self.shards) if k not in self.offered | self.split}
        return {unit for unit in everything - self.done if not self.is_dead(unit)}

    def due(self, now: int) -> set[str]:
        """Units that a claim must find."""
        if self.state != "run":
            return set()
        return self.fresh() | {unit for unit, at in self.waiting.items() if at <= now}

    def tail(self, shard: int) -> list[str]:
        """The units in which a fresh shard is handed out."""
        first, stop, _ = self.span(str(shard))
        batches = -(-(stop - first) // self.batch)
        parts = min(-(-self.working // (self.shards - shard)), batches // 3)
        if parts < 2:
            return [str(shard)]
        step = -(-batches // parts) * self.batch
        return [f"{shard}:{a}-{min(a + step, stop)}" for a in range(first, stop, step)]

    def divide(self, unit: str) -> None:
        """A unit is handed out: of a fresh shard it must be the first that it has."""
        shard = unit.partition(":")[0]
        if unit in self.waiting or shard not in self.fresh():
            return
        units = self.tail(int(shard))
        assert unit == units[0]
        if unit != shard:
            self.split.add(int(shard))
            self.tails |= set(units)
            self.waiting |= dict.fromkeys(units, 0)

    def give(self, unit: str, token: str, deadline: int, ahead: bool = False) -> None:
        if unit in self.waiting:
            del self.waiting[unit]
        else:
            self.offered.add(int(unit))
        self.owners[unit] = Held(token, deadline, ahead=ahead)

    def owns(self, unit: str, token: str) -> bool:
        return unit in self.owners and self.owners[unit].token == token

    def expire(self, now: int) -> None:
        """What reaping does."""
        for unit, held in list(self.owners.items()):
            if held.deadline > now + LEASE_MAX:
                held.deadline = now + BACKOFF_MAX
            if held.deadline <= now:
                del self.owners[unit]
                self.died(unit, held, now)

    def died(self, unit: str, held: Held, now: int) -> str:
        """A death counts against the unit in hand; not one claimed ahead, or rendered already."""
        if self.state not in ("run", "pause"):
            return "cancelled"
        if held.progress is None and held.ahead:
            self.waiting[unit] = now
            return "released"
        return self.crash(unit, held.progress, now)

    def renew(self, unit: str, token: str, deadline: int, progress: int | None) -> RenewAnswer:
        if not self.owns(unit, token):
            return "lost"
        held = self.owners[unit]
        held.deadline = deadline
        if progress is not None and progress > (-1 if held.progress is None else held.progress):
            held.progress = progress
        if self.state in ("cancel", "stop"):
            return "cancel"
        return "pause" if self.state == "pause" else "ok"

    def win(self, unit: str, token: str) -> str:
        if unit not in self.winners and self.owns(unit, token):
            self.winners[unit] = token
        return self.winners.get(unit, "")

    def finish_unit(self, unit: str, token: str, arbiter: str, failed: int) -> str:
        """What `done` does."""
        _, _, top = self.span(unit)
        whole = ":" not in unit
        if (whole and top in self.split) or self.is_dead(unit):
            return "superseded"
        if unit in self.done:
            self.owners.pop(unit, None)
            return "duplicate"
        mine = self.owns(unit, token)
        if not mine and arbiter == "redis":
            return "fenced"
        if self.state not in ("run", "pause"):
            if mine:
                del self.owners[unit]
            return "cancelled"
        if not (unit in self.owners or unit in self.waiting or unit in self.fresh()):
            return "superseded"
        for places in (self.owners, self.waiting, self.crashes, self.winners):
            places.pop(unit, None)
        self.done.add(unit)
        self.failed += failed
        self.settle()
        return "ok" if mine else "late"

    def fail(self, unit: str, token: str, kind: str, progress: int | None, now: int) -> str:
        if not self.owns(unit, token):
            return "lost"
        held = self.owners.pop(unit)
        if self.state not in ("run", "pause"):
            return "cancelled"
        if kind == "release":
            self.waiting[unit] = now
            return "released"
        if progress is None:
            return self.died(unit, held, now)
        return self.crash(unit, progress, now)

    def crash(self, unit: str, progress: int | None, now: int) -> str:
        if self.state not in ("run", "pause"):
            return "cancelled"
        first, stop, top = self.span(unit)
        sound = ":" not in unit or unit in self.tails
        allowed = self.max_attempts if sound or stop - first == 1 else 1
        count = self.crashes.pop(unit, 0) + 1
        if count < allowed:
            self.crashes[unit] = count
            self.waiting[unit] = now + min(BACKOFF_MAX, 1000 * 2**count) if count > 1 else 0
            return "retry"
        if stop - first == 1:
            self.dead.add(first)
            self.settle()
            return "dead"
        self.split.add(top)
        self.winners.pop(unit, None)
        edges = self.edges(first, stop, progress)
        for a, b in pairwise(edges):
            self.waiting[f"{top}:{a}-{b}"] = now
        return "split"

    def edges(self, first: int, stop: int, progress: int | None) -> list[int]:
        if progress is not None and first <= progress < stop:
            end = min(progress + self.batch, stop)
            if end - progress < stop - first:
                return sorted({first, progress, end, stop})
        return [first, (first + stop) // 2, stop]

    def settle(self) -> None:
        if self.state not in ("run", "pause"):
            return
        if self.max_failed is not None and self.failed + len(self.dead) > self.max_failed:
            self.end("stop")
        elif self.settled() == self.images:
            self.end("fin")

    def end(self, state: str) -> None:
        self.state = state
        self.waiting.clear()
        self.crashes.clear()

    def wish(self, wanted: str) -> str:
        """What `state` does."""
        if self.state in ("run", "pause"):
            self.state = wanted
            if wanted == "cancel":
                self.end("cancel")
        return self.state

    def awaits_scheduler(self) -> bool:
        return self.state == "fin" or (self.state in ("cancel", "stop") and not self.owners)
