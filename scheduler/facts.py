"""What the policy knows and what it says: values without Ray, Redis or a clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Loading an engine takes so long where nobody has measured it.
LOAD_S = 30.0


@dataclass(frozen=True)
class Work:
    """What one tenant has to do on one engine at one priority: waiting and in flight together."""

    tenant: str
    priority: int
    units: int
    #: Device-seconds of it, measured where anything was.
    cost_s: float
    #: Units of these that renderers have in hand.
    in_flight: int = 0


@dataclass(frozen=True)
class EngineDemand:
    """What one engine has to do, and what it costs to have it."""

    engine_key: str
    work: tuple[Work, ...] = ()
    #: The base model and the kind of node it asks for: engines that share it differ in adapters.
    base_key: str = ""
    #: Seconds from nothing to an engine, and from another engine of its base.
    load_s: float = LOAD_S
    refit_s: float = LOAD_S
    #: How much of a device its next renderer takes.
    share: float = 1.0
    #: How long nothing has waited or run for it.
    idle_ms: int = 0
    #: How long it has had work, and nobody who rendered any of it.
    starved_ms: int = 0
    #: Renderers that it may have at most: those that are there, where none can be started.
    most: int = 1_000_000

    @property
    def units(self) -> int:
        """Units that a renderer could be busy with."""
        return sum(one.units for one in self.work)

    @property
    def cost_s(self) -> float:
        """Device-seconds of all its work."""
        return sum(one.cost_s for one in self.work)


@dataclass(frozen=True)
class RendererFact:
    """A renderer there is, pending ones included."""

    name: str
    engine_key: str
    draining: bool = False
    #: It has nothing in hand.
    idle: bool = False
    #: It has its engine, and so can be refitted for another of the same base.
    ready: bool = False
    #: How much of a device it has.
    share: float = 1.0


@dataclass(frozen=True)
class Facts:
    """All that the policy knows. `slots`: how many renderers the cluster may hold."""

    slots: int
    demands: Sequence[EngineDemand] = ()
    renderers: Sequence[RendererFact] = ()
    idle_limit_ms: int = 300_000
    #: An engine gets renderers enough to end its work in so many seconds; 0: as many as there are.
    drain_s: float = 0.0
    #: Renderers of one engine: kept although nothing waits, and at most.
    least: int = 0
    most: int = 1_000_000
    #: Engine -> slots that are being freed for it, and slots that were and are free now.
    promised: Mapping[str, int] = field(default_factory=dict)
    freed: Mapping[str, int] = field(default_factory=dict)
    #: A tenant's share; 1 where it has none.
    weights: Mapping[str, float] = field(default_factory=dict)
    #: Units that a tenant may hold at once, over all engines; any number where it has none.
    caps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What to change: renderers to start by engine, to drain and to refit by name."""

    start: Mapping[str, int] = field(default_factory=dict)
    drain: tuple[str, ...] = ()
    #: Renderer -> engine of the same base that it becomes, once it has finished what it holds.
    refit: Mapping[str, str] = field(default_factory=dict)
    #: Of those that drain: whose engine gets the slot.
    heirs: Mapping[str, str] = field(default_factory=dict, compare=False)
    #: Engine -> renderers it will have by refits and in slots that are being freed.
    coming: Mapping[str, int] = field(default_factory=dict, compare=False)
