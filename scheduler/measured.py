"""What loading an engine and refitting a renderer take, as renderers measured it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from scheduler.facts import LOAD_S
from scheduler.observing import Beats
from scheduler.recipes import KEPT


@dataclass
class Measured:
    """Seconds by engine and by base; what nobody uses is forgotten."""

    _loads: dict[str, float] = field(default_factory=dict)
    #: By base: what the adapters are hardly matters.
    _refits: dict[str, float] = field(default_factory=dict)
    #: By base, until a refit was measured: what of a load is no process and no library.
    _stages: dict[str, float] = field(default_factory=dict)

    def take(self, beats: Beats, base_of: Callable[[str], str]) -> None:
        """Take in what living renderers say."""
        self._loads |= beats.loads
        for found, kept in ((beats.refits, self._refits), (beats.stages, self._stages)):
            slowest: dict[str, float] = {}
            for key, seconds in found.items():
                if base := base_of(key):
                    slowest[base] = max(seconds, slowest.get(base, 0.0))
            kept |= slowest

    def load_s(self, engine_key: str) -> float:
        """Seconds from nothing to the engine."""
        return self._loads.get(engine_key, LOAD_S)

    def refit_s(self, engine_key: str, base_key: str) -> float:
        """Seconds from another engine of its base; no more than a load."""
        load_s = self.load_s(engine_key)
        return min(load_s, self._refits.get(base_key, self._stages.get(base_key, load_s)))

    def forget(self, engines: Collection[str], bases: Collection[str]) -> None:
        """Of engines and bases that are none of these, keep no more than what is of use."""
        for memory, used in (
            (self._loads, engines),
            (self._refits, bases),
            (self._stages, bases),
        ):
            unused = [key for key in memory if key not in used]
            for key in unused[: max(0, len(memory) - KEPT)]:
                del memory[key]
