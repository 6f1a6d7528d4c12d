"""What is dear to make and small to keep: by key, up to a number of bytes, the latest used."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from jobs.pictures import PictureFile


class KeptFiles:
    """Files in memory. Safe to share between threads."""

    def __init__(self, bytes_max: int) -> None:
        self._max, self._bytes = bytes_max, 0
        self._lock = threading.Lock()
        self._files: OrderedDict[Hashable, PictureFile] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], PictureFile]) -> PictureFile:
        """The file under this key, made where it is not kept; what is raised is not kept."""
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
        made = make()
        with self._lock:
            if key not in self._files:
                self._files[key] = made
                self._bytes += len(made.data)
            while self._bytes > self._max:
                _, gone = self._files.popitem(last=False)
                self._bytes -= len(gone.data)
        return made
