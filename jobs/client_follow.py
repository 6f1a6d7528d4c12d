"""Following a job, without any wire: where its stream goes on, and which of its views are news."""

import time
from typing import Any

import httpx

from jobs.client_calls import path_of
from jobs.client_wire import RETRY_WAITS_S, scattered, unreachable
from jobs.errors import TooManyRequests, Unreachable
from jobs.job import JobView
from jobs.states import TERMINAL

#: How long a watcher bears an API that does not answer, and how often it asks without a stream.
PATIENCE_S = 60.0
POLL_S = 1.0
#: What a watcher bears for that long.
AWAY = (Unreachable, TooManyRequests)


class Resume:
    """A job's events over as many streams as it takes: what to ask for, and when again."""

    def __init__(self, url: str, job_id: str, after: str | None) -> None:
        self.path = path_of(job_id, "events")
        self._url, self._after, self._failures = url, after, 0

    def headers(self) -> dict[str, str]:
        """What the next stream is asked for with."""
        behind = {"Last-Event-ID": self._after} if self._after else {}
        return {"Accept": "text/event-stream"} | behind

    def take(self, event: dict[str, Any]) -> bool:
        """Go on behind this event from now on; False: it is the job's end, and no news."""
        self._failures = 0
        self._after = event["id"] or self._after
        return bool(event["type"] != "end")

    def wait_after(self, cut: httpx.TransportError | None) -> float:
        """Seconds until the next stream; raises Unreachable when four in a row brought nothing."""
        self._failures += 1
        if self._failures > len(RETRY_WAITS_S):
            raise unreachable(self._url, cut) from cut
        return scattered(RETRY_WAITS_S[self._failures - 1])


class Watch:
    """The views of a job that its user sees: each once, until the one in a final state."""

    def __init__(self) -> None:
        self._shown: JobView | None = None
        self._seen = time.monotonic()

    @property
    def ended(self) -> bool:
        """Whether the last view was in a final state."""
        return self._shown is not None and self._shown.state in TERMINAL

    def is_news(self, view: JobView) -> bool:
        """Whether the view differs from the one before."""
        self._seen = time.monotonic()
        before, self._shown = self._shown, view
        return view != before

    def bear(self, error: Exception) -> None:
        """Raises what the API answers, once it has been so for a minute."""
        if time.monotonic() - self._seen > PATIENCE_S:
            raise error
