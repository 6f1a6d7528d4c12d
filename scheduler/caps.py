"""Caps: what of the work its tenants may hold at once, over all engines."""

from collections import defaultdict
from dataclasses import dataclass, replace

from scheduler.facts import EngineDemand, Facts, Work
from scheduler.prices import deferral_ms


@dataclass(frozen=True)
class _Piece:
    """Work of a tenant with a cap, and where it stands among the demands."""

    number: int
    place: int
    work: Work
    #: How long its engine was passed over, where that is too long.
    late_ms: int


def within_caps(facts: Facts) -> list[EngineDemand]:
    """The demands without what tenants may not hold beside the rest: no renderer could claim it.

    A tenant's engines that were passed over come first, a unit each and half of the cap at most;
    then what is in hand, so that nobody at work is sent away for what could not be claimed; then
    the most urgent, and what there is most of. By its priority, not its rank: that rises with
    waiting, and would send engines in and out by turns.
    """
    deferred = deferral_ms(facts)
    pieces = defaultdict[str, list[_Piece]](list)
    for number, one in enumerate(facts.demands):
        late = one.starved_ms if one.starved_ms >= deferred else 0
        for place, work in enumerate(one.work):
            if work.tenant in facts.caps:
                pieces[work.tenant].append(_Piece(number, place, work, late))
    kept: dict[tuple[int, int], int] = {}
    for tenant, own in pieces.items():
        dealt = _dealt(own, facts.caps[tenant])
        kept |= {(one.number, one.place): dealt[n] for n, one in enumerate(own)}
    return [
        replace(one, work=tuple(_kept(one, number, kept))) if one.work else one
        for number, one in enumerate(facts.demands)
    ]


def _kept(demand: EngineDemand, number: int, kept: dict[tuple[int, int], int]) -> list[Work]:
    """Its work with the units that were dealt; all of a tenant without a cap."""
    units = [kept.get((number, place), work.units) for place, work in enumerate(demand.work)]
    return [
        replace(work, units=count) for work, count in zip(demand.work, units, strict=True) if count
    ]


def _dealt(pieces: list[_Piece], cap: int) -> list[int]:
    """Units of each piece that a tenant may hold."""
    got, left = [0] * len(pieces), cap
    served = set[int]()

    def give(number: int, units: int, most: int) -> None:
        nonlocal left
        more = min(units, pieces[number].work.units) - got[number]
        more = max(0, min(more, most - (cap - left), left))
        got[number] += more
        left -= more
        if got[number]:
            served.add(pieces[number].number)

    order = sorted(
        range(len(pieces)), key=lambda n: (-pieces[n].work.priority, -pieces[n].work.cost_s, n)
    )
    late = [number for number in order if pieces[number].late_ms]
    for number in sorted(late, key=lambda n: -pieces[n].late_ms):
        if pieces[number].number not in served:
            give(number, 1, max(1, cap // 2))
    for number in order:
        give(number, pieces[number].work.in_flight, cap)
    for number in order:
        give(number, pieces[number].work.units, cap)
    return got
