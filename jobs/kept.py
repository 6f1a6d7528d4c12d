"""What is dear to make and small to keep: by key, for a while, up to a number of bytes."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from jobs.pictures import PictureFile

#: Seconds after which a file is made anew. Whoever keeps what may be deleted asks before each
#: use whether it is still there; this is for what nobody asks for any more.
KEEP_S = 600.0


class KeptFiles:
    """Files in memory, the latest used. Safe to share between threads."""

    def __init__(self, bytes_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max, self._bytes, self._clock = bytes_max, 0, clock
        self._lock = threading.Lock()
        #: Key -> until when it is kept, and the file.
        self._files: OrderedDict[Hashable, tuple[float, PictureFile]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], PictureFile]) -> PictureFile:
        """The file under this key, made where it is not kept; what is raised is not kept."""
        with self._lock:
            until, found = self._files.get(key, (0.0, None))
            if found is not None and until > self._clock():
                self._files.move_to_end(key)
                return found
        made = make()
        with self._lock:
            self._drop(key)
            self._files[key] = self._clock() + KEEP_S, made
            self._bytes += len(made.data)
            while self._bytes > self._max:
                self._drop(next(iter(self._files)))
        return made

    def _drop(self, key: Hashable) -> None:
        _, gone = self._files.pop(key, (0.0, None))
        self._bytes -= len(gone.data) if gone is not None else 0
