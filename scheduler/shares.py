"""How many renderers each engine is to have: by tiers of priority and fair shares of tenants."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.facts import EngineDemand, Facts, Work
from scheduler.prices import deferral_ms

#: An engine with work and no renderer counts one priority higher for each time so long.
AGE_MS = 300_000
_HIGHEST = 9


def rank_of(demand: EngineDemand, work: Work) -> int:
    """How urgent a piece of work is: its priority, and how long its engine was passed over."""
    return min(_HIGHEST, work.priority + demand.starved_ms // AGE_MS)


def targets(facts: Facts) -> dict[str, int]:
    """Renderers by engine, `slots` together at most; the most urgent engines come first.

    Tier by tier: what is more urgent gets what it can use, what is left goes to the next. Within a
    tier each tenant's weight is spread over its engines by its work there, and engines share the
    slots by these weights, one each at least while there are slots.
    """
    held = Counter(one.engine_key for one in facts.renderers if not one.draining)
    deferred = deferral_ms(facts)
    given: dict[str, int] = {}
    units, cost = Counter[str](), defaultdict[str, float](float)
    for rank in sorted({rank_of(one, w) for one in facts.demands for w in one.work}, reverse=True):
        tier = {
            one: [work for work in one.work if work.units and rank_of(one, work) == rank]
            for one in facts.demands
        }
        weights = _weights(tier, facts.weights)
        asks = []
        for one, works in tier.items():
            key = one.engine_key
            units[key] += sum(work.units for work in works)
            cost[key] += sum(work.cost_s for work in works)
            more = _enough(facts, one, units[key], cost[key]) - given.get(key, 0) if works else 0
            if more > 0:
                has, old = given.get(key, 0), one.starved_ms >= deferred
                asks.append(_Ask(key, more, weights[key], held[key] - has, old, fresh=not has))
        for key, count in _spread(facts.slots - sum(given.values()), asks).items():
            given[key] = given.get(key, 0) + count
    return given


@dataclass(frozen=True)
class _Ask:
    """What an engine would take in this tier, and what it has of it."""

    key: str
    most: int
    weight: float
    held: int
    starved: bool
    #: It has nothing of a more urgent tier.
    fresh: bool


def enough(facts: Facts, demand: EngineDemand) -> int:
    """Renderers that all of an engine's work could use."""
    return _enough(facts, demand, demand.units, demand.cost_s)


def _enough(facts: Facts, demand: EngineDemand, units: int, cost_s: float) -> int:
    """Renderers that end the work in time; never more than could be busy."""
    count = math.ceil(cost_s / facts.drain_s) if facts.drain_s else units
    return min(max(1, facts.least, min(count, units)), facts.most, demand.most)


def _weights(
    tier: Mapping[EngineDemand, list[Work]], shares: Mapping[str, float]
) -> dict[str, float]:
    total = defaultdict[str, float](float)
    for works in tier.values():
        for work in works:
            total[work.tenant] += max(work.cost_s, 1e-9)
    return {
        one.engine_key: sum(
            shares.get(work.tenant, 1.0) * max(work.cost_s, 1e-9) / total[work.tenant]
            for work in works
        )
        for one, works in tier.items()
    }


def _spread(slots: int, asks: Iterable[_Ask]) -> dict[str, int]:
    """The slots among those who ask: one each, the rest by weight, in whole numbers.

    Whoever starved comes first, then who holds a renderer: a slot does not change hands for a
    fraction of one.
    """
    ordered = sorted(asks, key=lambda one: (not one.starved, one.held <= 0, -one.weight, one.key))
    got = {one.key: 0 for one in ordered}
    for one in [ask for ask in ordered if ask.fresh][: max(0, slots)]:
        got[one.key] = 1
    exact = _level(max(0, slots), ordered, got)
    for one in ordered:
        got[one.key] = max(got[one.key], math.floor(exact[one.key] + 1e-6))
    left = max(0, slots) - sum(got.values())
    for one in sorted(
        (one for one in ordered if got[one.key] < one.most),
        key=lambda one: (
            not (one.starved and not got[one.key]),
            one.held <= got[one.key],
            math.floor(exact[one.key] + 1e-6) - exact[one.key],
        ),
    )[: max(0, left)]:
        got[one.key] += 1
    return {key: count for key, count in got.items() if count}


def _level(slots: int, asks: list[_Ask], least: Mapping[str, int]) -> dict[str, float]:
    """Shares in proportion to weights, none below `least` or above what was asked for: the level
    at which they fill the slots is found by halving."""

    def at(level: float) -> dict[str, float]:
        return {one.key: min(max(level * one.weight, least[one.key]), one.most) for one in asks}

    low, high = 0.0, max((one.most / one.weight for one in asks), default=0.0)
    if sum(at(high).values()) <= slots:
        return at(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle).values()) <= slots else (low, middle)
    return at(low)
