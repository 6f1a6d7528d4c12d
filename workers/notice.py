"""Word that a renderer is to leave, and how long it has."""

import math
import threading
import time


class Notice(threading.Event):
    """Set once the renderer is to leave; it then begins nothing new."""

    def __init__(self) -> None:
        super().__init__()
        self._by = math.inf

    def give(self, seconds: float | None = None) -> None:
        """Leave; with `seconds`, its node may be gone after so many. The earliest end counts."""
        if seconds is not None:
            self._by = min(self._by, time.monotonic() + seconds)
        self.set()

    def left_s(self) -> float:
        """Seconds that are left, below 0 where it is late; infinite where nobody named an end."""
        return self._by - time.monotonic()
