"""Following a job: its events over a stream that is opened again, and its views until it ends."""

import time
from collections.abc import Iterator
from typing import Any

import httpx

from jobs import client_calls as calls
from jobs.client_calls import view_of
from jobs.client_wire import RETRY_WAITS_S, Wire, pause, unreachable
from jobs.errors import Unreachable
from jobs.job import JobView
from jobs.states import TERMINAL

#: How long `views_of` bears an API that does not answer, and how often it asks without a stream.
PATIENCE_S = 60.0
POLL_S = 1.0


def events_after(wire: Wire, job_id: str, after: str | None) -> Iterator[dict[str, Any]]:
    """Events of a job as `{"id", "type", "data"}` until `end`, over as many streams as it takes.

    Raises Unreachable when three streams in a row bring nothing.
    """
    failures = 0
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        cut: httpx.TransportError | None = None
        try:
            for event in wire.stream(f"/v1/jobs/{job_id}/events", headers):
                failures = 0
                after = event["id"] or after
                if event["type"] == "end":
                    return
                yield event
        except httpx.TransportError as error:
            cut = error
        failures += 1
        if failures > len(RETRY_WAITS_S):
            raise unreachable(wire.url, cut) from cut
        pause(RETRY_WAITS_S[failures - 1])


def views_of(wire: Wire, job_id: str) -> Iterator[JobView]:
    """The job's view whenever it changed, until the one in a final state."""
    shown: JobView | None = None
    for view in _all_views(wire, job_id):
        if view != shown:
            shown = view
            yield view
        if view.state in TERMINAL:
            return


def _all_views(wire: Wire, job_id: str) -> Iterator[JobView]:
    """Views without end: from events, and by asking where those do not come through."""
    seen = time.monotonic()
    while True:
        try:
            for event in events_after(wire, job_id, None):
                if event["type"] == "progress":
                    seen = time.monotonic()
                    yield view_of(event["data"])
        except Unreachable:
            if time.monotonic() - seen > PATIENCE_S:
                raise
        pause(POLL_S)
        try:
            view = wire.run(calls.job(job_id))
        except Unreachable:
            continue
        seen = time.monotonic()
        yield view
