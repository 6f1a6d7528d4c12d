"""The event stream: typed, resumable, honest about gaps."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from jobs.errors import InvalidInput
from jobs.events import START, EventFeed
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Claim, Clock, Submit

STREAM = "{fewstep}:q1:events"


@pytest.fixture
def feed(client: redis.Redis) -> EventFeed:
    """A listener."""
    return EventFeed(client)


def test_a_job_tells_its_story(
    queue: ShardQueue, feed: EventFeed, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit(images=3, shard_images=2, max_attempts=1)
    queue.set_priority("job", 9)
    whole, single = claim(want=2)
    clock.forward(5)
    queue.done("job", whole.unit, whole.token, failed=1)
    queue.fail("job", single.unit, single.token, "crash", "segfault")
    queue.finish("job", "done")
    events = feed.read(START).events
    assert [(event.type, event.unit) for event in events] == [
        ("submit", ""),
        ("claimed", "0"),
        ("claimed", "1"),
        ("done", "0"),
        ("dead", "1"),
        ("state", ""),
        ("finished", ""),
    ]
    dead = events[4]
    assert (dead.images, dead.done, dead.failed, dead.dead) == (3, 1, 1, 1)
    assert dead.fields == {"why": "segfault"}
    assert (dead.job_id, dead.time_ms) == ("job", clock.now)
    assert events[1].fields == {"worker": "w"}
    assert events[5].fields == {"state": "fin"}
    assert events[6].fields == {"outcome": "done"}


def test_retries_splits_and_releases_are_told(
    queue: ShardQueue, feed: EventFeed, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit(images=10, max_attempts=2)
    for kind in ("release", "crash", "crash"):
        clock.forward(60_000)
        [lease] = claim()
        queue.fail("job", lease.unit, lease.token, kind, kind)
    told = [event.type for event in feed.read(START).events if event.type != "claimed"]
    assert told == ["submit", "release", "fail", "split"]


def test_reading_goes_on_where_it_stopped(feed: EventFeed, queue: ShardQueue) -> None:
    for number in range(5):
        queue.emit("note", f"job{number}", number=number)
    first = feed.read(START, limit=2)
    rest = feed.read(first.cursor)
    assert [event.fields["number"] for event in first.events] == ["0", "1"]
    assert [event.fields["number"] for event in rest.events] == ["2", "3", "4"]
    assert rest.cursor == feed.newest()
    assert feed.read(rest.cursor).events == []
    assert not first.gap
    assert not rest.gap


def test_one_job_can_be_followed(feed: EventFeed, queue: ShardQueue) -> None:
    for job_id in ("a", "b", "a"):
        queue.emit("note", job_id)
    page = feed.read(START, job_id="b")
    assert [event.job_id for event in page.events] == ["b"]
    assert page.cursor == feed.newest()


def test_a_listener_waits_for_news(feed: EventFeed, queue: ShardQueue) -> None:
    queue.emit("old")
    newest = feed.newest()
    assert feed.read(newest, block_ms=1).events == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(feed.read, newest, block_ms=2_000)
        queue.emit("new")
        assert [event.type for event in waiting.result(timeout=10).events] == ["new"]


def test_trimmed_events_are_a_gap(client: redis.Redis, feed: EventFeed, queue: ShardQueue) -> None:
    queue.emit("first")
    first = feed.newest()
    queue.emit("second")
    assert not feed.read(first).gap
    client.xtrim(STREAM, maxlen=1, approximate=False)
    page = feed.read(first)
    assert page.gap
    assert [event.type for event in page.events] == ["second"]
    assert not feed.read(page.cursor).gap


@pytest.mark.parametrize("story_goes_on", [True, False])
def test_a_lost_stream_is_a_gap(
    client: redis.Redis, feed: EventFeed, queue: ShardQueue, story_goes_on: bool
) -> None:
    assert feed.newest() == START
    assert not feed.read(START).gap
    # An id of long ago: in a test, the lost event and the next may share their millisecond.
    cursor = str(client.xadd(STREAM, {"type": "first"}, id="1-1"))
    client.flushall()
    if story_goes_on:
        queue.emit("second")
    page = feed.read(cursor)
    assert page.gap
    assert [event.type for event in page.events] == ["second"] * story_goes_on
    assert not feed.read(page.cursor).gap


def test_a_stream_that_begins_below_the_cursor_is_read_from_its_start(
    feed: EventFeed, queue: ShardQueue
) -> None:
    queue.emit("after the clock went back")
    page = feed.read("9999999999999-0")
    assert (page.gap, page.cursor) == (True, START)
    assert len(feed.read(page.cursor).events) == 1


def test_the_stream_is_capped(client: redis.Redis, queue: ShardQueue, feed: EventFeed) -> None:
    fill = "for i = 1, 100200 do redis.call('XADD', KEYS[1], '*', 'type', 'filler') end"
    client.eval(fill, 1, STREAM)
    queue.emit("last")
    assert client.xlen(STREAM) <= 100_100
    assert feed.read(feed.newest()).events == []


@pytest.mark.parametrize("cursor", ["", "$", "+", "1", "1-1-1", "-1-0", "1-18446744073709551616"])
def test_a_cursor_that_is_none_is_refused(feed: EventFeed, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="event id"):
        feed.read(cursor)


def test_nobody_waits_longer_than_the_socket(feed: EventFeed) -> None:
    with pytest.raises(InvalidInput, match="block_ms"):
        feed.read(START, block_ms=60_000)
