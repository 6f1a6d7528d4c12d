"""A job's events as a stream that a browser or the client can follow and resume."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from jobs.api.visitor import Visitor
from jobs.errors import FewstepError, NoAccess, TooManyRequests
from jobs.events import START, Event, EventFeed, EventPage
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
#: Pages of the stream (500 events of all jobs) that are read for who comes back.
MISSED_PAGES = 20
#: Streams that a key, or without keys a tenant, may have open in one process of the API.
STREAMS = 256
KEEP_ALIVE_S = 15
#: How long an EventSource waits before it connects again.
RECONNECT_MS = 1_000


class Streams:
    """Counts open streams by who reads them."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def response(self, visitor: Visitor, pieces: AsyncIterator[ServerSentEvent]) -> "Stream":
        """A stream to this visitor; raises TooManyRequests where as many are open as may be.

        To be returned at once: it counts until it has ended.
        """
        reader = visitor.key_id or visitor.tenant
        if self._open[reader] >= STREAMS:
            raise TooManyRequests(
                f"{STREAMS} event streams of this key are open, and no more may be",
                where="Authorization",
                remedy="close some, or ask for the jobs themselves now and then",
                retry_after_s=KEEP_ALIVE_S,
            )
        self._open[reader] += 1
        return Stream(pieces, lambda: self._close(reader))

    def _close(self, reader: str) -> None:
        self._open[reader] -= 1
        if not self._open[reader]:
            del self._open[reader]


class Stream(EventSourceResponse):
    """Server-sent events, and what is to be done when nobody reads them any more."""

    def __init__(self, pieces: AsyncIterator[ServerSentEvent], ended: Callable[[], None]) -> None:
        super().__init__(pieces, ping=KEEP_ALIVE_S, headers={"X-Content-Type-Options": "nosniff"})
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the stream ends or its reader has gone."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


class EventFan:
    """One reader of the queue's stream for all open connections of this process."""

    def __init__(self, feed: EventFeed, noticed: Callable[[str], None] = lambda kind: None) -> None:
        """`noticed` is told the type of every event that passes."""
        self._feed = feed
        self._noticed = noticed
        self._listeners: dict[str, set[asyncio.Queue[Event]]] = {}
        self.streams = Streams()

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
            async for page in self._missed(job_id, cursor):
                for event in page.events:
                    yield _sent(event)
                cursor = page.cursor
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

    async def _missed(self, job_id: str, after: str) -> AsyncIterator[EventPage]:
        """The job's events between `after` and now, from a bounded part of the stream.

        Who is further behind has the view, which was sent first, and goes on with what is new.
        """
        newest = await asyncio.to_thread(self._feed.newest)
        for _ in range(MISSED_PAGES):
            if _order(after) >= _order(newest):
                return
            page = await asyncio.to_thread(self._feed.read, after, job_id=job_id)
            if page.cursor in (after, START):
                return
            yield page
            after = page.cursor
        if _order(after) < _order(newest):
            yield EventPage([], newest, gap=True)


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
