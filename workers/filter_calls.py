"""Calls of code that is not ours: each on a thread of its own kind, and none for ever."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

#: How long a call is waited for before the one who waits shows that it lives.
_LOOK_S = 1.0


class Overdue(RuntimeError):
    """A call that did not come back in time, or one after it."""


class BoundedCalls:
    """Makes calls one after another on one thread; after one that hangs, none any more.

    A thread cannot be ended, so what hangs keeps it until its process ends.
    """

    def __init__(self, name: str, seconds: float, moved: Callable[[], None]) -> None:
        """`moved` is called while a call is waited for: the sign that the device does not hang."""
        self._seconds = seconds
        self._moved = moved
        self._hung = ""
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name=f"filter-{name}", daemon=True).start()

    def call(self, work: Callable[[], Any], seconds: float | None = None) -> Any:
        """What `work` returns, within `seconds` if given; raises what it raises, or Overdue."""
        if self._hung:
            raise Overdue(self._hung)
        future: Future[Any] = Future()
        self._calls.put((future, work))
        limit = self._seconds if seconds is None else seconds
        until = time.monotonic() + limit
        while time.monotonic() < until:
            try:
                return future.result(min(_LOOK_S, max(0.0, until - time.monotonic())))
            except TimeoutError:
                if future.done():
                    raise
                self._moved()
        self._hung = f"it gave no answer within {limit:g} s"
        raise Overdue(self._hung)

    def _work(self) -> None:
        while True:
            future, work = self._calls.get()
            try:
                future.set_result(work())
            # Whatever it raises belongs to whoever waits for the call.
            except BaseException as error:
                future.set_exception(error)
