"""A job's event stream: it begins with a snapshot, can be resumed, and ends with the job."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from jobs.api.sse import MISSED_PAGES, EventFan
from jobs.events import EventFeed, EventPage
from tests.api_calls import finish, render, submit
from tests.api_keys import KeyedApi
from tests.api_servers import RunningApi
from tests.servers import wait_until


@contextmanager
def following(api: RunningApi, job_id: str, after: str = "") -> Iterator[Iterator[dict[str, str]]]:
    """A job's event stream, as the raw fields of each event."""
    headers = {"Last-Event-ID": after} if after else {}
    with (
        httpx.Client(base_url=api.url, trust_env=False, timeout=20) as client,
        client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as reply,
    ):
        assert reply.headers["content-type"].startswith("text/event-stream")
        yield fields_of(reply)


def fields_of(reply: httpx.Response) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for line in reply.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields
            fields = {}


def test_events_begin_with_a_snapshot_and_end_with_the_job(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = submit(http)
    with following(api, job_id) as events:
        first = next(events)
        assert (first["event"], json.loads(first["data"])["state"]) == ("progress", "waiting")
        render(api, job_id)
        finish(api, job_id)
        rest = list(events)

    kinds = [event["event"] for event in rest]
    assert kinds.count("claimed") == kinds.count("done") == 2
    assert kinds[-1] == "end"
    assert json.loads(rest[-2]["data"])["state"] == "done"


def test_events_resume_behind_the_last_one_seen(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http)
    render(api, job_id)
    finish(api, job_id)
    with following(api, job_id, after="0-1") as events:
        every = [event for event in events if event["event"] not in ("progress", "end")]
    with following(api, job_id, after=every[2]["id"]) as events:
        rest = [event for event in events if event["event"] not in ("progress", "end")]

    assert every[0]["event"] == "submit"
    assert rest == every[3:]


def test_events_of_other_jobs_stay_away(http: httpx.Client, api: RunningApi) -> None:
    mine, other = submit(http), submit(http)
    with following(api, mine) as events:
        next(events)
        http.post(f"/v1/jobs/{other}/pause")
        http.post(f"/v1/jobs/{mine}/cancel")
        api.queue.finish(mine, "cancelled")
        rest = [json.loads(event["data"]) for event in events]

    assert {event["job_id"] for event in rest if "job_id" in event} == {mine}


def test_a_key_has_a_bounded_number_of_streams(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.api.sse.STREAMS", 2)
    job_id = submit(http)
    with following(api, job_id) as one, following(api, job_id) as other:
        next(one), next(other)
        for path in (f"/v1/jobs/{job_id}/events", f"/jobs/{job_id}/live"):
            reply = http.get(path)
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "15"), path
            assert "2 event streams" in reply.text

    def is_let_in() -> bool:
        with http.stream("GET", f"/v1/jobs/{job_id}/events") as reply:
            return reply.status_code == 200

    wait_until(is_let_in, "a place", 20)


class Endless(EventFeed):
    """A stream in which a million events of others lie, and how often it was read."""

    def __init__(self) -> None:
        self.reads = 0

    def newest(self) -> str:
        return "1000000-0"

    def read(
        self, after: str, *, job_id: str | None = None, limit: int = 500, block_ms: int = 0
    ) -> EventPage:
        self.reads += 1
        return EventPage([], f"{int(after.split('-')[0]) + limit}-0", gap=False)


def test_who_comes_back_after_long_makes_nobody_read_the_whole_stream() -> None:
    feed = Endless()

    async def missed() -> str:
        pages = [page async for page in EventFan(feed)._missed("job", "0-1")]
        return pages[-1].cursor

    assert asyncio.run(missed()) == feed.newest()
    assert feed.reads == MISSED_PAGES


def test_a_stream_ends_with_its_key(keyed: KeyedApi) -> None:
    text = keyed.make("ann")
    with keyed.visit(text) as http:
        job_id = submit(http)
        with http.stream("GET", f"/v1/jobs/{job_id}/events") as reply:
            events = fields_of(reply)
            assert next(events)["event"] == "progress"
            key_id = text.split("_")[1]
            keyed.keys.revoke(key_id, 1_700_000_000_001)
            assert [event["event"] for event in events if event["event"] != "submit"] == []
        assert http.get(f"/v1/jobs/{job_id}").status_code == 401
