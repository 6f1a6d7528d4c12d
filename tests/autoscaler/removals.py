"""Whether a node was removed under a renderer: Ray's removals beside the queue's own record."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis import RedisError

from jobs.events import START, Event, EventFeed
from jobs.shard_queue import ShardQueue

#: How often the list of living renderers is read: as exactly is known when one left.
LOOK_S = 0.1
#: What ends a claim.
_ENDS = ("done", "release", "fail")


@dataclass(frozen=True)
class NodeNote:
    """What the node provider was asked for: `made` or `ended`, milliseconds since 1970."""

    what: str
    node: str
    at_ms: int
    #: Which of the autoscaler's node types it is.
    kind: str = ""


@dataclass
class Stay:
    """One renderer process: its node, and when it was last on the list of the living."""

    node: str
    last_ms: int


@dataclass(frozen=True)
class Claim:
    """A unit in a renderer's hand from `from_ms` on; `until_ms` None: it still is."""

    worker: str
    unit: str
    from_ms: int
    until_ms: int | None


@dataclass
class Stays:
    """Watches the list of the living renderers on a thread of its own."""

    queue: ShardQueue
    seen: dict[str, Stay] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> "Stays":
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="stays", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            now_ms = time.time_ns() // 1_000_000
            try:
                living = self.queue.renderers_of(("ray_node",))
            except RedisError:
                continue
            for one in living:
                self.seen[one.worker] = Stay(one.info.get("ray_node", ""), now_ms)


def read_notes(path: Path) -> list[NodeNote]:
    """What the provider wrote down so far."""
    return [NodeNote(**json.loads(line)) for line in path.read_text().splitlines()]


def all_events(feed: EventFeed) -> list[Event]:
    """The queue's events from the first on."""
    found: list[Event] = []
    cursor = START
    while (page := feed.read(cursor)).events:
        found += page.events
        cursor = page.cursor
    return found


def claims_of(events: Iterable[Event]) -> list[Claim]:
    """Who held which unit when, by Redis' clock."""
    claims: list[Claim] = []
    open_: dict[tuple[str, str], Event] = {}
    for event in events:
        key = (event.job_id, event.unit)
        if event.type not in ("claimed", *_ENDS):
            continue
        # A unit that is claimed anew is no longer in the hand that had it.
        if begun := open_.pop(key, None):
            claims.append(Claim(begun.fields["worker"], event.unit, begun.time_ms, event.time_ms))
        if event.type == "claimed":
            open_[key] = event
    claims += [Claim(one.fields["worker"], one.unit, one.time_ms, None) for one in open_.values()]
    return claims


def removed_under(
    notes: Iterable[NodeNote], stays: Mapping[str, Stay], claims: Iterable[Claim]
) -> list[str]:
    """Removals of a node whose renderer held a unit, or had not left: what was wrong, in words."""
    held = defaultdict[str, list[Claim]](list)
    for claim in claims:
        held[claim.worker].append(claim)
    wrong = []
    for note in notes:
        for worker, stay in stays.items():
            if note.what != "ended" or stay.node != note.node:
                continue
            if stay.last_ms > note.at_ms:
                wrong.append(f"{note.node[-5:]} was removed while {worker} was there")
            wrong += [
                f"{note.node[-5:]} was removed while {worker} held {claim.unit}"
                for claim in held[worker]
                if claim.from_ms <= note.at_ms
                and (claim.until_ms is None or note.at_ms < claim.until_ms)
            ]
    return wrong
