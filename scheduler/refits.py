"""Refits: who was told to become which engine, until it says that it is one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scheduler.observing import Beats
from scheduler.pool import PoolActor
from scheduler.promises import TOLD_S


@dataclass
class Refits:
    """Which engine each renderer is of. Its name says what it was made with, its heartbeat what it
    is; between the word and the heartbeat it counts as what it was told to become.

    Forgotten with the process, and then read from heartbeats anew.
    """

    clock: Callable[[], float]
    #: Renderer -> the engine it is to become, and when that was last heard of.
    _told: dict[str, tuple[str, float]] = field(default_factory=dict)

    def note(self, name: str, engine_key: str) -> None:
        """Remember who was told to become what."""
        self._told[name] = (engine_key, self.clock())

    def look(self, actors: list[PoolActor], beats: Beats) -> None:
        """Take in what renderers say; forget those who are gone, are there, or never heard it."""
        for name, engine_key in beats.becoming.items():
            if self._told.get(name, (engine_key, 0.0))[0] == engine_key:
                self.note(name, engine_key)
        present, now = {one.name for one in actors}, self.clock()
        self._told = {
            name: (key, at)
            for name, (key, at) in self._told.items()
            if name in present and now - at <= TOLD_S and not _is_there(beats, name, key)
        }

    def told(self, name: str) -> bool:
        """Whether it is on its way to another engine."""
        return name in self._told

    def engines(self, actors: list[PoolActor], beats: Beats) -> Mapping[str, str]:
        """Renderer -> the engine that it counts as."""
        said = beats.engines
        return {
            one.name: self._told[one.name][0]
            if one.name in self._told
            else said.get(one.name, one.engine_key)
            for one in actors
        }


def _is_there(beats: Beats, name: str, engine_key: str) -> bool:
    return beats.engines.get(name) == engine_key and name not in beats.becoming
