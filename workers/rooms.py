"""A bounded hand-over: how much may wait between two stages before the first must stop."""

import threading


class Room:
    """Counts what waits. Something always fits into an empty room, however large it is."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._changed = threading.Condition()

    def enter(self, amount: int) -> bool:
        """Wait until `amount` fits beside what is inside, and add it; whether it had to wait."""
        with self._changed:
            waited = not self._fits(amount)
            self._changed.wait_for(lambda: self._fits(amount))
            self._inside += amount
        return waited

    def leave(self, amount: int) -> None:
        """Take `amount` out again."""
        with self._changed:
            self._inside -= amount
            self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return not self._inside or self._inside + amount <= self._limit
