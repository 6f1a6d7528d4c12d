"""Calls of code that is not ours: each on a thread of its own kind, and none for ever."""

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

#: How long a call is waited for before the one who waits shows that it lives.
_LOOK_S = 1.0
#: None: there is no further one.
_Calls = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class Overdue(RuntimeError):
    """A call that did not come back in time, or one while it has not."""


class BoundedCalls:
    """Makes calls one after another on one thread; while one hangs, no further one.

    A thread cannot be ended, so what hangs for good keeps it until its process ends.
    """

    def __init__(self, name: str, seconds: float, moved: Callable[[], None]) -> None:
        """`moved` is called while a call is waited for: the sign that the device does not hang."""
        self._seconds = seconds
        self._moved = moved
        #: The call that is overdue, and what is said of it.
        self._late: tuple[Future[Any], str] | None = None
        self._calls: _Calls = SimpleQueue()
        thread = threading.Thread(
            target=_work, args=(self._calls,), name=f"filter-{name}", daemon=True
        )
        thread.start()
        # Else each filter that nobody holds any more would leave a thread.
        weakref.finalize(self, self._calls.put, None)

    def call(self, work: Callable[[], Any], seconds: float | None = None) -> Any:
        """What `work` returns, within `seconds` if given; raises what it raises, or Overdue."""
        if self._late is not None and not self._late[0].done():
            raise Overdue(self._late[1])
        self._late = None
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
        self._late = (future, f"it gave no answer within {limit:g} s")
        raise Overdue(self._late[1])


def _work(calls: _Calls) -> None:
    while (one := calls.get()) is not None:
        future, work = one
        try:
            future.set_result(work())
        # Whatever it raises belongs to whoever waits for the call.
        except BaseException as error:
            future.set_exception(error)
        # The next call may come late, or never: its pictures need not wait for that.
        del one, future, work
