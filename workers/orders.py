"""What a renderer was told: which engine it is to hold next, or that it is to leave."""

import threading
from dataclasses import dataclass, field

from workers.notice import Notice


@dataclass(frozen=True)
class Held:
    """An engine as a renderer holds it, from its loading until `ending` is given."""

    engine_key: str
    recipe_json: str
    #: The one it came with; others are refits, in a process that is there already.
    first: bool = False
    #: Its units are to be finished: the renderer leaves, or becomes another engine.
    ending: Notice = field(default_factory=Notice)


class Orders:
    """The first engine, and what comes after it. Any thread may give an order."""

    def __init__(self, engine_key: str, recipe_json: str) -> None:
        #: For the whole process.
        self.leaving = Notice()
        self._lock = threading.Lock()
        self._next: Held | None = Held(engine_key, recipe_json, first=True)
        self._held = self._next

    @property
    def becomes(self) -> str:
        """The engine that it is to become once it has finished its units; "": it stays."""
        coming, held = self._next, self._held
        return coming.engine_key if coming is not None and coming is not held else ""

    def leave(self, seconds: float | None = None) -> None:
        """Leave, in so many seconds if given. Nothing comes after it."""
        with self._lock:
            self.leaving.give(seconds)
            self._held.ending.give(seconds)

    def refit(self, engine_key: str, recipe_json: str) -> None:
        """Become another engine of the same base; the latest word counts, unless it is to leave."""
        with self._lock:
            if self.leaving.is_set():
                return
            if engine_key == self._held.engine_key and self._next is None:
                return
            fresh = self._next is self._held
            self._next = Held(engine_key, recipe_json, first=fresh)
            self._held.ending.give()

    def take(self) -> Held | None:
        """The engine to hold now; None: the renderer leaves."""
        with self._lock:
            if self.leaving.is_set() or self._next is None:
                self.leaving.set()
                return None
            self._held, self._next = self._next, None
            return self._held
