"""Promises: who was told to leave, and whose engine gets the slot."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from scheduler.facts import Decision, RendererFact

#: After so long a renderer that was told to drain and does not say so has forgotten it.
TOLD_S = 60.0


@dataclass
class Promises:
    """What the last decisions promised; forgotten with the process, and then decided anew."""

    clock: Callable[[], float]
    #: Renderer -> when it was told to drain.
    _told_at: dict[str, float] = field(default_factory=dict)
    #: Renderer -> engine that gets its slot.
    _heirs: dict[str, str] = field(default_factory=dict)

    def note(self, decision: Decision) -> None:
        """Remember who is told to leave, and for whom."""
        self._told_at |= dict.fromkeys(decision.drain, self.clock())
        self._heirs |= decision.heirs

    def forget(self, present: Collection[str]) -> None:
        """Those who have left need not be told again."""
        self._told_at = {name: at for name, at in self._told_at.items() if name in present}

    def told(self, name: str) -> bool:
        """Whether a renderer was told to drain of late: it says so itself at its next beat only."""
        return self.clock() - self._told_at.get(name, float("-inf")) <= TOLD_S

    def slots(self, renderers: Sequence[RendererFact]) -> tuple[Counter[str], Counter[str]]:
        """Engine -> slots that are being freed for it, and that are free by now. These are named
        once: a slot that is gone with its node is none."""
        draining = {one.name: one.draining for one in renderers}
        free = Counter(heir for name, heir in self._heirs.items() if name not in draining)
        self._heirs = {name: heir for name, heir in self._heirs.items() if draining.get(name)}
        return Counter(self._heirs.values()), free
