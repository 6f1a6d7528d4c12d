"""Which engines get how many renderers: facts in, decisions out, no Ray, Redis or clock inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: An engine waits this long before it may take the slot of an equal one that is at work: loading
#: weights costs up to minutes, and engines that take turns by the second only load.
TURN_MS = 300_000


@dataclass(frozen=True)
class EngineDemand:
    """What one engine has to do: units nobody holds, units in flight, its most urgent job."""

    engine_key: str
    units_waiting: int
    units_in_flight: int
    images_waiting: int
    priority: int = 0
    #: How long nothing has waited or run for it.
    idle_ms: int = 0
    #: How long it has had work and no renderer.
    starved_ms: int = 0

    @property
    def units(self) -> int:
        """Units that a renderer could be busy with."""
        return self.units_waiting + self.units_in_flight


@dataclass(frozen=True)
class RendererFact:
    """A renderer there is, pending ones included."""

    name: str
    engine_key: str
    draining: bool = False


@dataclass(frozen=True)
class Facts:
    """All that the policy knows. `slots`: how many renderers the cluster may hold."""

    slots: int
    demands: Sequence[EngineDemand] = ()
    renderers: Sequence[RendererFact] = ()
    idle_limit_ms: int = 300_000


@dataclass(frozen=True)
class Decision:
    """What to change: renderers to start by engine, renderers to drain by name."""

    start: Mapping[str, int] = field(default_factory=dict)
    drain: tuple[str, ...] = ()


def decide(facts: Facts) -> Decision:
    """Shares the slots among the engines that have work; what is over may stay until idle too long.

    An engine with work gets at least one slot, by priority, while there are slots; the rest goes
    by waiting images, never more than an engine has units. A renderer without work gives its slot
    up only when another engine needs it, or when it has been idle beyond the limit.
    """
    wanted = _shares(facts)
    idle = {demand.engine_key: demand.idle_ms for demand in facts.demands}
    active = [one for one in facts.renderers if not one.draining]
    surplus: list[RendererFact] = []
    missing: dict[str, int] = {}
    engines = dict.fromkeys([one.engine_key for one in active] + list(wanted))
    for engine in engines:
        own = [one for one in active if one.engine_key == engine]
        want = wanted.get(engine, 0)
        surplus += own[want:]
        if want > len(own):
            missing[engine] = want - len(own)
    drain = [
        one.name
        for one in surplus
        if wanted.get(one.engine_key, 0) == 0
        and idle.get(one.engine_key, facts.idle_limit_ms) >= facts.idle_limit_ms
    ]
    free = facts.slots - len(facts.renderers)
    short = sum(missing.values()) - max(0, free)
    # Slots that are already being freed come first; only then is a surplus renderer asked to go.
    short -= sum(one.draining for one in facts.renderers) + len(drain)
    for one in surplus:
        if short <= 0:
            break
        if one.name not in drain:
            drain.append(one.name)
            short -= 1
    return Decision(_fill(missing, free), tuple(drain))


def _shares(facts: Facts) -> dict[str, int]:
    """Slots by engine: one each, then the rest by waiting images.

    The urgent come first; among equals those who waited a whole turn, then those who hold a
    renderer, so that a slot does not change hands with every shard.
    """
    held: dict[str, int] = {}
    for one in facts.renderers:
        held[one.engine_key] = held.get(one.engine_key, 0) + (not one.draining)
    busy = sorted(
        (demand for demand in facts.demands if demand.units > 0),
        key=lambda demand: (
            -demand.priority,
            demand.starved_ms < TURN_MS,
            not held.get(demand.engine_key),
            -demand.images_waiting,
            demand.engine_key,
        ),
    )
    shares = {demand.engine_key: 1 for demand in busy[: facts.slots]}
    for _ in range(facts.slots - len(shares)):
        open_ones = [one for one in busy if shares.get(one.engine_key, 0) < one.units]
        if not open_ones:
            break
        neediest = max(open_ones, key=lambda one: _need(one, shares[one.engine_key], held))
        shares[neediest.engine_key] += 1
    return shares


def _need(demand: EngineDemand, share: int, held: Mapping[str, int]) -> float:
    """Waiting images per renderer after one more; twice that where the renderer is there."""
    keeps = 2 if share < held.get(demand.engine_key, 0) else 1
    return keeps * demand.images_waiting / (share + 1)


def _fill(missing: Mapping[str, int], free: int) -> dict[str, int]:
    """As many of the missing renderers as there are free slots, in order."""
    start: dict[str, int] = {}
    for engine, count in missing.items():
        granted = min(count, max(0, free))
        if granted:
            start[engine] = granted
        free -= granted
    return start
