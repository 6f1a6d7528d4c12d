"""Day: 200 tenants on 50 engines in virtual time, first with backlog everywhere, then mixed."""

import random
import statistics
from collections.abc import Iterator

from benchmarks.fleet import RENDERERS, TENANTS
from benchmarks.goals import Goal
from benchmarks.servers import running_redis, url_of
from benchmarks.simulated_cluster import (
    BACKLOG_S,
    BUCKET_S,
    STEP_S,
    Ledger,
    SimulatedCluster,
    Spell,
)
from benchmarks.simulated_pool import BASES, LOAD_S, REFIT_S

PART = "day"
#: Fair shares are judged in every ten minutes.
WINDOW_S = 600.0
#: Until then the pool fills and finds its place.
WARM_S = 900.0
#: A day of so many hours, the middle third by day: more hours take longer than anybody waits. The
#: loop steps more rarely in it, and a unit, which ends before its lease does, is not renewed.
HOURS, DAY_STEP_S = 6.0, 10.0
#: Device-seconds asked for each second, over what the pool has: by night and by day.
NIGHT, DAY = 0.7, 1.3
REAL = f"virtual time, the loop steps every {STEP_S:g} s"


def run(quick: bool) -> list[Goal]:
    """Fair shares with backlog everywhere; then idle time and swaps of a mixed day."""
    size, hours, crowded_s = (40, 0.2, 1_200.0) if quick else (RENDERERS, HOURS, 1_800.0)
    tenants = 8 if quick else TENANTS
    return [
        _fairness(size, tenants, WARM_S + crowded_s, most=1),
        _fairness(size, tenants, WARM_S + crowded_s, most=3),
        *_mixed(size, tenants, hours),
    ]


def _fairness(size: int, tenants: int, seconds: float, most: int) -> Goal:
    with running_redis() as port:
        cluster = SimulatedCluster(url_of(port), size)
        for tenant in range(tenants):
            for engine in _engines_of(cluster, tenant, most):
                cluster.submit(f"tenant-{tenant}", engine, 10_000_000)
        cluster.run(seconds)
    off = sorted(_deviations(cluster.ledger, tenants, WARM_S, seconds))
    middle = statistics.median(off)
    within = sum(one <= 0.05 for one in off) / len(off)
    return Goal(
        PART,
        f"share of ten minutes, off the fair one; 1 to {most} engines a tenant",
        "%",
        off[-1] * 100,
        most=5.0,
        how=f"the worst of {len(off)} windows of {tenants} tenants with backlog; "
        f"{within:.0%} are within 5 %, half within {middle:.1%}; {size:,} renderers; "
        f"{cluster.ledger.loads} loads, {cluster.ledger.refits} refits; {REAL}",
        seen={"p90": off[int(len(off) * 0.9)], "p99": off[int(len(off) * 0.99)]},
    )


def _engines_of(cluster: SimulatedCluster, tenant: int, most: int = 3) -> list[str]:
    drawn = random.Random(tenant)
    return drawn.sample(cluster.recipes, drawn.randint(1, most))


def _deviations(ledger: Ledger, tenants: int, start: float, end: float) -> Iterator[float]:
    """How far every tenant was from an equal share, in every window that begins with a minute."""
    many = int(WINDOW_S // BUCKET_S)
    # What is rendered at the end is not booked yet.
    for first in range(int(start // BUCKET_S), int((end - 300) // BUCKET_S) - many):
        window = range(first, first + many)
        spent = [
            sum(ledger.spent[f"tenant-{tenant}"].get(one, 0.0) for one in window)
            for tenant in range(tenants)
        ]
        fair = sum(spent) / tenants
        yield from (abs(one / fair - 1) for one in spent)


def _mixed(size: int, tenants: int, hours: float) -> list[Goal]:
    with running_redis() as port:
        cluster = SimulatedCluster(url_of(port), size, DAY_STEP_S, renewing=False)
        cluster.submit("tenant-0", cluster.recipes[0], 10_000_000)
        arrivals = _Arrivals(cluster, tenants, hours)
        cluster.at(0.0, arrivals.next)
        cluster.run(hours * 3_600)
        ledger = cluster.ledger
    small = sorted(ledger.started.get(name, float("inf")) for name in arrivals.small)
    how = (
        f"{hours:g} h, load {NIGHT:g} to {DAY:g} of the pool, {len(ledger.submitted):,} jobs of 16 "
        f"to 10 million images, {ledger.cycles:,} units; {size:,} renderers, {tenants} tenants, 50 "
        f"engines of {BASES} bases, {ledger.loads:,} loads of {LOAD_S:g} s and {ledger.refits:,} "
        f"refits of {REFIT_S:g} s; virtual time, the loop steps every {DAY_STEP_S:g} s, no renewals"
    )
    crowded = f"with a backlog of {BACKLOG_S / 60:g} minutes"
    return [
        *_spell("mixed load", ledger.crowded + ledger.calm, how),
        *_spell(crowded, ledger.crowded, f"{_hours(ledger.crowded, size):.1f} h of them"),
        *_spell("without one", ledger.calm, f"{_hours(ledger.calm, size):.1f} h of them"),
        Goal(
            PART,
            "start of a job of 16 images, half within",
            "s",
            small[len(small) // 2],
            how=f"{len(small)} jobs of equal priority, most behind others of their tenant; 75 % "
            f"within {small[len(small) * 3 // 4]:.0f} s; inf: not in this time",
        ),
    ]


def _hours(spell: Spell, size: int) -> float:
    return spell.slots_s / size / 3_600


def _spell(name: str, spell: Spell, how: str) -> list[Goal]:
    idle, loading = f"idle beside units that wait, {name}", f"loading engines, {name}"
    return [
        Goal(PART, idle, "% of device time", 100 * spell.idle_share, most=5.0, how=how),
        Goal(PART, loading, "% of device time", 100 * spell.loading_share, most=2.0, how=how),
    ]


class _Arrivals:
    """Jobs as they come: a third of 16 images, the rest from thousands to a million."""

    def __init__(self, cluster: SimulatedCluster, tenants: int, hours: float) -> None:
        self._cluster, self._tenants = cluster, tenants
        self._random = random.Random(11)
        self._seconds = hours * 3_600
        self.small: list[str] = []

    def next(self) -> None:
        """Submit one, and come again when its device-seconds are worth it."""
        cluster, draw = self._cluster, self._random
        # Few tenants have most of the work.
        tenant = min(int(draw.paretovariate(0.6)) - 1, draw.randrange(self._tenants))
        engine = draw.choice(_engines_of(cluster, tenant))
        images = 16
        if draw.random() < 2 / 3:
            images = min(1_000_000, int(draw.lognormvariate(9.2, 1.5)) + 1_000)
        priority = draw.choices((2, 4, 6), (1, 8, 1))[0] if images > 16 else 4
        name = cluster.submit(f"tenant-{tenant}", engine, images, priority=priority)
        if images == 16:
            self.small.append(name)
        load = DAY if 1 / 3 < cluster.now / self._seconds < 2 / 3 else NIGHT
        asked = images * cluster.cost[engine]
        cluster.at(draw.expovariate(1.0) * asked / (load * cluster.size), self.next)
