"""The stream of events, read from wherever a listener left off (server-sent events, webhooks).

The stream is capped and Redis may lose it: events are news, the truth is the queue and the store.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from jobs.errors import InvalidInput
from jobs.queue_script import key_prefix
from jobs.queue_values import checked_range
from jobs.redis_client import explained

#: Before the first event there can be.
START = "0-0"
#: Longest wait for news in one read; less than the socket timeout of a client.
MAX_BLOCK_MS = 2_000

_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_COUNTS = ("images", "done", "failed", "dead")
_NAMED = frozenset({"type", "job", "unit", "time", *_COUNTS})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, and how far its job was then."""

    #: Rises with every event: resume after it.
    id: str
    #: submit, claimed, done, fail, release, split, dead, state, finished, or an emitted kind.
    type: str
    job_id: str
    unit: str
    time_ms: int
    #: Images of the job in all, with a picture, failed, given up.
    images: int
    done: int
    failed: int
    dead: int
    #: What only this kind has: worker, why, state, outcome, ...
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order; `cursor` is where to go on, also when none of them was wanted.

    `gap`: events may be missing before these (trimmed, or Redis was lost): read the job anew.
    """

    events: list[Event]
    cursor: str
    gap: bool


class EventFeed:
    """Reads the stream; any number of listeners may, each with a cursor of its own."""

    def __init__(self, client: redis.Redis, *, prefix: str = "{fewstep}") -> None:
        self._client: Any = client
        self._stream = f"{key_prefix(prefix)}:events"

    def newest(self) -> str:
        """The cursor after which only what is still to come is read."""
        with explained():
            rows = self._client.xrevrange(self._stream, count=1)
        return str(rows[0][0]) if rows else START

    def read(
        self, after: str, *, job_id: str | None = None, limit: int = 500, block_ms: int = 0
    ) -> EventPage:
        """Up to `limit` events after an id, those of one job if named.

        Waits up to `block_ms` (at most 2000) if there is none yet; with `job_id`, it may return
        none earlier. Raises InvalidInput for an id that no stream has.
        """
        checked_cursor(after)
        checked_range(block_ms, 0, MAX_BLOCK_MS, "block_ms")
        with explained():
            oldest, newest, rows = self._ends_and_rows(after, limit)
            if not rows and block_ms:
                self._client.xread({self._stream: after}, count=1, block=block_ms)
                oldest, newest, rows = self._ends_and_rows(after, limit)
        if _order(newest) < _order(after):
            # The stream was lost and begins anew, below the listener's cursor.
            return EventPage([], START, gap=True)
        events = [_event(at, fields) for at, fields in rows]
        wanted = [one for one in events if job_id is None or one.job_id == job_id]
        gap = after != START and _order(oldest) > _order(after)
        return EventPage(wanted, events[-1].id if events else after, gap)

    def _ends_and_rows(
        self, after: str, limit: int
    ) -> tuple[str, str, list[tuple[str, dict[str, str]]]]:
        pipe = self._client.pipeline(transaction=True)
        pipe.xrange(self._stream, count=1)
        pipe.xrevrange(self._stream, count=1)
        pipe.xrange(self._stream, min=f"({after}", count=limit)
        first, last, rows = pipe.execute()
        return first[0][0] if first else START, last[0][0] if last else START, rows


def checked_cursor(cursor: str) -> str:
    """`cursor` if it is the id of an event (a client may send anything back)."""
    match = _ID.fullmatch(cursor)
    if match is None or max(int(part) for part in match.groups()) >= 2**64:
        raise InvalidInput(f"{cursor[:40]!r} is no event id", where="Last-Event-ID")
    return cursor


def _order(cursor: str) -> tuple[int, int]:
    moment, number = cursor.split("-")
    return int(moment), int(number)


def _event(at: str, record: Mapping[str, str]) -> Event:
    images, done, failed, dead = (int(record.get(name, 0)) for name in _COUNTS)
    return Event(
        id=at,
        type=record.get("type", ""),
        job_id=record.get("job", ""),
        unit=record.get("unit", ""),
        time_ms=int(record.get("time", 0)),
        images=images,
        done=done,
        failed=failed,
        dead=dead,
        fields={name: value for name, value in record.items() if name not in _NAMED},
    )
