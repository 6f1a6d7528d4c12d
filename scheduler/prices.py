"""Prices: what a slot must bring an engine that is to have it, and how long that may wait."""

from scheduler.facts import EngineDemand, Facts

#: Work that the slot would get, in times of what loading takes, where a renderer gives it up that
#: has nothing in hand and would serve its engine's next job: less, the longer that is in coming.
WARM, STALE = 20.0, 1.0
#: Where one at work gives it up: its engine is loaded again then. A free slot has no price.
BUSY = 30.0
#: Of the slots' time, what loading engines may take that are let in because they waited.
DEFERRED = 0.02
#: And they wait no longer than this.
DEFER_MS = 300_000


def deferral_ms(facts: Facts, *, refits: bool = True) -> int:
    """How long an engine without a renderer waits until it takes a slot from one at work.

    So long that those who wait now, let in as often as that, load for `DEFERRED` of the slots'
    time: two seconds for each of them on a thousand slots, minutes on eight. An engine whose base
    is there counts with a refit, and gets no more for it than that (without `refits`: a load).
    """
    there = {one.engine_key for one in facts.renderers if not one.draining}
    there |= facts.promised.keys() | facts.freed.keys()
    bases = bases_there(facts) if refits else set()
    loads_s = sum(
        one.refit_s if one.base_key in bases else one.load_s
        for one in facts.demands
        if one.units and one.engine_key not in there
    )
    room = DEFERRED * facts.slots
    return max(1, min(DEFER_MS, round(1e3 * loads_s / room))) if room else DEFER_MS


def bases_there(facts: Facts) -> set[str]:
    """Bases that some renderer has: an engine of one of them may come by a refit."""
    there = {one.engine_key for one in facts.renderers if not one.draining}
    return {one.base_key for one in facts.demands if one.engine_key in there} - {""}


def warm_price(holder: EngineDemand | None, idle_limit_ms: int) -> float:
    """Loads that a renderer's slot costs which has nothing in hand: less, the longer its engine has
    had nothing to do; in the end it would leave anyway."""
    if holder is None:
        return STALE
    stale = min(1.0, holder.idle_ms / idle_limit_ms) if idle_limit_ms else 1.0
    return WARM + (STALE - WARM) * stale
