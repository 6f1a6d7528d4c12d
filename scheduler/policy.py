"""Which engines get how many renderers: facts in, decisions out, no Ray, Redis or clock inside."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from jobs.queue_placement import Placement
from scheduler.facts import Decision, EngineDemand, Facts, RendererFact
from scheduler.shares import DEFER_MS, rank_of, targets, within_caps


def decide(facts: Facts) -> Decision:
    """Bring the pool nearer to its targets, by what a change costs.

    Free slots are filled first. Then renderers whose engine has nothing to do give theirs up; a
    renderer at work only where the other engine is more urgent, has waited long, or has more to
    do than the swap costs. Without need nobody goes, but who was idle too long.
    """
    facts = replace(facts, demands=within_caps(facts))
    want = targets(facts)
    active = [one for one in facts.renderers if not one.draining]
    surplus = _surplus(active, want)
    drain = _leave(surplus, facts, want)
    surplus = [one for one in surplus if one.name not in drain]
    # The budget may have shrunk under them; none at all is a cluster that does not answer yet.
    for one in surplus[: max(0, len(active) - len(drain) - facts.slots) if facts.slots else 0]:
        drain.append(one.name)
    surplus = [one for one in surplus if one.name not in drain]
    free = max(0, facts.slots - len(facts.renderers))
    # Slots that are being freed already are waited for.
    freeing = len(facts.renderers) - len(active) + len(drain)
    start: dict[str, int] = {}
    held = Counter(one.engine_key for one in active)
    demands = {one.engine_key: one for one in facts.demands}
    for engine, count in want.items():
        missing = max(0, count - held[engine])
        started = min(missing, free)
        if started:
            start[engine] = started
        waited = min(missing - started, freeing)
        free, freeing = free - started, freeing - waited
        for number in range(missing - started - waited):
            share = demands[engine].cost_s / (held[engine] + started + waited + number + 1)
            victim = _victim(surplus, demands[engine], share, demands)
            if victim is None:
                break
            surplus.remove(victim)
            drain.append(victim.name)
    return Decision(start, tuple(drain))


def placement_of(facts: Facts, decision: Decision) -> Placement:
    """What was decided, as news for those who wait: an engine is wanted where a renderer of it is
    there, is started, or will be in a place that is being freed."""
    held = Counter(one.engine_key for one in facts.renderers if not one.draining)
    freeing = len(decision.drain) + sum(one.draining for one in facts.renderers)
    aim = targets(replace(facts, demands=within_caps(facts)))
    wanted = {}
    for one in facts.demands:
        if one.units:
            there = held[one.engine_key] + decision.start.get(one.engine_key, 0)
            comes = min(freeing, max(0, aim.get(one.engine_key, 0) - there))
            freeing -= comes
            wanted[one.engine_key] = there + comes
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
    idle = {one.engine_key: one.idle_ms for one in facts.demands}
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


def _victim(
    surplus: list[RendererFact],
    newcomer: EngineDemand,
    share_s: float,
    demands: Mapping[str, EngineDemand],
) -> RendererFact | None:
    """Whose slot the newcomer takes, as cheaply as may be; None where it has to wait.

    `share_s`: device-seconds of its work that the slot would get.
    """
    urgent = max(rank_of(newcomer, work) for work in newcomer.work)

    def cost(one: RendererFact) -> tuple[bool, bool, bool, int]:
        holder = demands.get(one.engine_key)
        busy = holder is not None and holder.units > 0
        other = holder is None or not holder.base_key or holder.base_key != newcomer.base_key
        return (busy, not one.idle, other, _least_rank(holder))

    def gives(one: RendererFact) -> bool:
        holder = demands.get(one.engine_key)
        if holder is None or not holder.units or newcomer.starved_ms >= DEFER_MS:
            return True
        same = holder.base_key and holder.base_key == newcomer.base_key
        # It has to be loaded, and the other one again afterwards.
        swap_s = newcomer.refit_s + holder.refit_s if same else newcomer.load_s + holder.load_s
        return urgent > _least_rank(holder) or share_s > swap_s

    return min(filter(gives, surplus), key=cost, default=None)


def _least_rank(holder: EngineDemand | None) -> int:
    """What a renderer too many works on: the least urgent of its engine's."""
    works = holder.work if holder is not None else ()
    return min((rank_of(holder, work) for work in works if holder is not None), default=-1)
