"""A job's events as a stream that a browser or the client can follow and resume."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from sse_starlette import ServerSentEvent

from jobs.errors import FewstepError, NoAccess
from jobs.events import START, Event, EventFeed
from jobs.job import JobView
from jobs.states import TERMINAL

log = logging.getLogger(__name__)

BLOCK_MS = 1_000
#: Events of a job within this time share one new view.
GATHER_S = 0.25
#: Without events the view is looked at so often: rates and reasons change without any.
LOOK_S = 2.0
#: News that a slow connection has not taken; beyond it, it gets the view alone.
QUEUE_MAX = 1_000
KEEP_ALIVE_S = 15
#: How long an EventSource waits before it connects again.
RECONNECT_MS = 1_000


class EventFan:
    """One reader of the queue's stream for all open connections of this process."""

    def __init__(self, feed: EventFeed, noticed: Callable[[str], None] = lambda kind: None) -> None:
        """`noticed` is told the type of every event that passes."""
        self._feed = feed
        self._noticed = noticed
        self._listeners: dict[str, set[asyncio.Queue[Event]]] = {}

    async def run(self) -> None:
        """Read news and hand them out until cancelled; waits while Redis does not answer."""
        cursor: str | None = None
        while True:
            try:
                if cursor is None:
                    cursor = await asyncio.to_thread(self._feed.newest)
                page = await asyncio.to_thread(self._feed.read, cursor, block_ms=BLOCK_MS)
            except FewstepError as error:
                log.warning("events_away error=%s", error)
                await asyncio.sleep(BLOCK_MS / 1000)
                continue
            cursor = page.cursor
            for event in page.events:
                self._noticed(event.type)
                self._hand_out(event)

    def _hand_out(self, event: Event) -> None:
        for queue in self._listeners.get(event.job_id, ()):
            if not queue.full():
                queue.put_nowait(event)

    @contextmanager
    def listening(self, job_id: str) -> Iterator[asyncio.Queue[Event]]:
        """A queue that gets the job's events from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_MAX)
        self._listeners.setdefault(job_id, set()).add(queue)
        try:
            yield queue
        finally:
            self._listeners[job_id].discard(queue)
            if not self._listeners[job_id]:
                del self._listeners[job_id]

    async def cursor(self, after: str | None) -> str:
        """Where a stream begins: behind `after`, or with what comes now."""
        newest = await asyncio.to_thread(self._feed.newest)
        # An id from before Redis was lost may lie ahead of all that comes.
        return newest if after is None or _order(after) > _order(newest) else after

    async def stream(
        self, job_id: str, cursor: str, view: JobView, look: Callable[[], JobView]
    ) -> AsyncIterator[ServerSentEvent]:
        """`progress` with `view`, the job's events behind `cursor`, and so on until its end.

        `look` gives a new view, which is sent where it differs. Every event carries an id to
        resume behind; the last one is `end`.
        """
        with self.listening(job_id) as news:
            yield _progress(view, cursor, retry=RECONNECT_MS)
            for event in await asyncio.to_thread(self._missed, job_id, cursor):
                cursor = event.id
                yield _sent(event)
            while view.state not in TERMINAL:
                for event in await _gathered(news):
                    if _order(event.id) > _order(cursor):
                        cursor = event.id
                        yield _sent(event)
                try:
                    before, view = view, await asyncio.to_thread(_again, look, view)
                except NoAccess:
                    # Its key was revoked: who comes again is told so.
                    return
                if view != before:
                    yield _progress(view, cursor)
            yield ServerSentEvent(data="{}", event="end", id=cursor)

    def _missed(self, job_id: str, after: str) -> list[Event]:
        """The job's events between `after` and now."""
        found: list[Event] = []
        newest = self._feed.newest()
        while _order(after) < _order(newest):
            page = self._feed.read(after, job_id=job_id)
            found += page.events
            if page.cursor in (after, START):
                break
            after = page.cursor
        return found


async def _gathered(news: asyncio.Queue[Event]) -> list[Event]:
    """The events of the next moment; none where nothing happens within `LOOK_S`."""
    try:
        first = await asyncio.wait_for(news.get(), LOOK_S)
    except TimeoutError:
        return []
    await asyncio.sleep(GATHER_S)
    return [first, *(news.get_nowait() for _ in range(news.qsize()))]


def _again(look: Callable[[], JobView], before: JobView) -> JobView:
    """A new view; the one before while queue or store do not answer, so that the stream lives.

    Raises NoAccess where who looks may look no more.
    """
    try:
        return look()
    except NoAccess:
        raise
    except FewstepError as error:
        log.warning("view_failed error=%s", error)
        return before


def _progress(view: JobView, cursor: str, retry: int | None = None) -> ServerSentEvent:
    return ServerSentEvent(data=view.model_dump_json(), event="progress", id=cursor, retry=retry)


def _sent(event: Event) -> ServerSentEvent:
    fields = asdict(event)
    fields |= fields.pop("fields")
    return ServerSentEvent(data=json.dumps(fields), event=event.type, id=event.id)


def _order(cursor: str) -> tuple[int, int]:
    moment, number = cursor.split("-")
    return int(moment), int(number)
