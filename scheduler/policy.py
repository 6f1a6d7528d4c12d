"""Which engines get how many renderers: facts in, decisions out, no Ray, Redis or clock inside."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from jobs.queue_placement import Placement
from scheduler.caps import within_caps
from scheduler.change import Change
from scheduler.facts import Decision, Facts, RendererFact
from scheduler.shares import enough, targets


def decide(facts: Facts) -> Decision:
    """Bring the pool nearer to its targets, by what a change costs.

    Free slots are filled first. Then renderers whose engine has nothing to do give theirs up; a
    renderer at work only where the other engine is more urgent, has waited long, or has more to
    do than the swap costs. What nobody is short of goes to who has most to do. Without need nobody
    leaves, but who was idle too long.
    """
    at_work = [one.engine_key for one in facts.demands if any(w.in_flight for w in one.work)]
    facts = replace(facts, demands=within_caps(facts))
    want = targets(facts)
    active = [one for one in facts.renderers if not one.draining]
    spare = _surplus(active, want)
    leaving = _leave(spare, facts, want)
    spare = [one for one in spare if one.name not in leaving]
    # The budget may have shrunk under them; none at all is a cluster that does not answer yet.
    shrunk = max(0, len(active) - len(leaving) - facts.slots) if facts.slots else 0
    leaving += [one.name for one in spare[:shrunk]]
    change = Change(facts, want, at_work, spare[shrunk:], leaving)
    most = {one.engine_key: enough(facts, one) for one in facts.demands if one.units}
    change.keep_promises(lambda key: most.get(key, 0))
    change.fill(want, lambda key: want[key], over=False)
    change.fill(most, lambda key: most[key], over=True)
    return change.decision()


def placement_of(facts: Facts, decision: Decision) -> Placement:
    """What was decided, as news for those who wait: an engine is wanted where a renderer of it is
    there, is started, or will be in a place that is being freed."""
    held = Counter(one.engine_key for one in facts.renderers if not one.draining)
    wanted = {
        key: held[key] + decision.start.get(key, 0) + decision.coming.get(key, 0)
        for key in (one.engine_key for one in facts.demands if one.units)
    }
    return Placement(facts.slots, dict(held), wanted)


def _surplus(active: list[RendererFact], want: Mapping[str, int]) -> list[RendererFact]:
    """Renderers beyond their engine's target: of each engine those that have nothing in hand."""
    found: list[RendererFact] = []
    for engine in dict.fromkeys(one.engine_key for one in active):
        own = sorted((one for one in active if one.engine_key == engine), key=lambda one: one.idle)
        found += own[want.get(engine, 0) :]
    return found


def _leave(surplus: list[RendererFact], facts: Facts, want: Mapping[str, int]) -> list[str]:
    """Those whose engine has had nothing to do for too long, but for the least that it keeps."""
    idle = {one.engine_key: 0 if one.units else one.idle_ms for one in facts.demands}
    kept = Counter[str]()
    leaving = []
    for one in surplus:
        limit = facts.idle_limit_ms
        if want.get(one.engine_key) or idle.get(one.engine_key, limit) < limit:
            continue
        kept[one.engine_key] += 1
        if kept[one.engine_key] > facts.least:
            leaving.append(one.name)
    return leaving
