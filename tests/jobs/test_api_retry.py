"""The API of retries, extensions and drops: what it answers, and views by their own ids."""

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from jobs.api import house, routes_drop
from jobs.client import Client
from jobs.client_async import AsyncClient
from jobs.client_upload import Stored
from jobs.drop import Dropped
from jobs.errors import Conflict, InvalidInput
from jobs.job import JobRequest
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import Reading
from jobs.templates.expansion import Expansion, TemplateRequest
from tests.api_calls import show
from tests.api_servers import RunningApi, serving
from tests.rendered_jobs import Workshop

PROMPTS = ["a red circle", "a blue star", "a green ring"]


@pytest.fixture
def shop(api: RunningApi) -> Workshop:
    """Renders and finishes what the API was given."""
    return Workshop(ShardQueue(api.redis), api.store)


def done_job(http: httpx.Client, shop: Workshop, broken: set[int]) -> str:
    body = {"job": {"name": "shapes", "shard_images": 2}, "prompts": PROMPTS}
    job_id = str(http.post("/v1/jobs", json=body).json()["id"])
    render(shop, job_id, broken)
    return job_id


def render(shop: Workshop, queue_id: str, broken: set[int]) -> None:
    shop.broken = broken
    engine = shop.record(queue_id).engine_key
    for number in range(9):
        for lease in shop.queue.claim("w", f"{queue_id}{number}", engine, 1, 60_000):
            shop.say_done(lease, shop.commit(lease))
    shop.finish()


def test_long_drops_leave_the_threads_of_other_requests_free(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reads a whole dataset: those that wait for their turn hold no thread."""
    job_id = http.post("/v1/jobs", json={"prompts": PROMPTS}).json()["id"]
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(*_: object) -> Dropped:
        begun.release()
        assert go_on.wait(60)
        return Dropped(images=3, dropped=1, shards=1)

    monkeypatch.setattr(routes_drop, "look", slow)
    path, asked = f"/v1/jobs/{job_id}/drop?dry_run=true", {"where": "seed = 1"}
    with ThreadPoolExecutor(60) as callers:
        calls = [callers.submit(http.post, path, json=asked) for _ in range(60)]
        try:
            for _ in range(house.CHANGERS):
                assert begun.acquire(timeout=60)
            assert show(http, job_id)["state"] == "waiting"
            assert not begun.acquire(blocking=False)
        finally:
            go_on.set()
        assert {call.result().status_code for call in calls} == {200}


def test_a_retry_is_a_job_of_its_own_to_its_user(http: httpx.Client, shop: Workshop) -> None:
    job_id = done_job(http, shop, {1, 2})
    assert [one["image"] for one in http.get(f"/v1/jobs/{job_id}/failed").json()["failed"]] == [
        1,
        2,
    ]

    key = {"Idempotency-Key": "mine"}
    reply = http.post(f"/v1/jobs/{job_id}/retry-failed", headers=key)
    again = http.post(f"/v1/jobs/{job_id}/retry-failed", headers=key)

    asked = reply.json()
    assert reply.status_code == again.status_code == 202
    assert (asked["id"], asked["created"], asked["images"]) == (f"{job_id}-r1", True, 2)
    assert again.json() == asked | {"created": False}
    assert reply.headers["location"] == asked["links"]["status"]
    waiting = http.get(asked["links"]["status"]).json()
    assert (waiting["state"], waiting["name"], waiting["images"]) == (
        "waiting",
        "shapes (retry 1)",
        2,
    )
    assert http.get(f"/v1/jobs/{job_id}").json()["retry"] == asked["id"]
    listed = [job["id"] for job in http.get("/v1/jobs").json()["jobs"]]
    assert listed == [asked["id"], job_id]
    paused = http.post(f"/v1/jobs/{asked['id']}/pause").json()
    assert paused["state"] == "paused"
    assert http.post(f"/v1/jobs/{asked['id']}/resume").json()["state"] == "waiting"

    render(shop, asked["id"], set())

    assert show(http, asked["id"])["state"] == "done"
    job = show(http, job_id)
    assert (job["state"], job["done"], job["failed"]) == ("done", 3, 0)
    assert http.get(f"/v1/jobs/{asked['id']}/results").json()["complete"]
    items = http.get(f"/v1/jobs/{job_id}/items").json()["items"]
    assert [(one["status"], one["key"]) for one in items] == [
        ("ok", "000000000"),
        ("ok", "000020000"),
        ("ok", "000020001"),
    ]
    picture = http.get(f"/v1/jobs/{job_id}/items/2/picture")
    assert hashlib.sha256(picture.content).hexdigest() == items[2]["sha256"]
    refused = http.post(f"/v1/jobs/{job_id}/retry-failed")
    assert (refused.status_code, refused.json()["detail"]) == (409, "no image of the job failed")


def test_a_retry_is_shown_from_the_store_when_the_queue_forgot_it(
    http: httpx.Client, api: RunningApi, shop: Workshop
) -> None:
    job_id = done_job(http, shop, {1})
    retry_id = http.post(f"/v1/jobs/{job_id}/retry-failed").json()["id"]
    render(shop, retry_id, set())
    api.redis.flushall()

    view = show(http, retry_id)

    assert (view["state"], view["images"], view["done"]) == ("done", 1, 1)
    assert show(http, job_id)["done"] == 3
    unknown = http.get(f"/v1/jobs/{job_id}-r2")
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "there is no such retry")


def test_what_cannot_be_retried_is_refused(http: httpx.Client) -> None:
    body = {"prompts": PROMPTS}
    job_id = http.post("/v1/jobs", json=body).json()["id"]

    running = http.post(f"/v1/jobs/{job_id}/retry-failed")
    unknown = http.post(f"/v1/jobs/{'a' * 26}/retry-failed")
    key = http.post(f"/v1/jobs/{job_id}/retry-failed", headers={"Idempotency-Key": "a b"})

    assert (running.status_code, running.json()["detail"]) == (409, "the job has not ended")
    assert unknown.status_code == 404
    assert (key.status_code, key.json()["where"]) == (422, "Idempotency-Key")


def test_an_extension_is_a_job_of_its_own_to_its_user(
    http: httpx.Client, api: RunningApi, shop: Workshop
) -> None:
    job_id = done_job(http, shop, set())
    key = {"Idempotency-Key": "mine"}

    reply = http.post(f"/v1/jobs/{job_id}/extend", headers=key, json={"repeats": 1})
    again = http.post(f"/v1/jobs/{job_id}/extend", headers=key, json={"repeats": 1})

    asked = reply.json()
    assert reply.status_code == again.status_code == 202
    assert (asked["id"], asked["created"], asked["images"]) == (f"{job_id}-r1", True, 3)
    assert again.json() == asked | {"created": False}
    assert reply.headers["location"] == asked["links"]["status"]
    assert show(http, asked["id"])["name"] == "shapes (extension 1)"
    assert (show(http, job_id)["images"], show(http, job_id)["state"]) == (3, "done")
    render(shop, asked["id"], set())

    def whole() -> tuple[str, int, int]:
        view = show(http, job_id)
        return view["state"], view["images"], view["done"]

    assert whole() == ("done", 6, 6)
    items = http.get(f"/v1/jobs/{job_id}/items?first=3").json()["items"]
    assert [(one["row"], one["repeat"], one["key"]) for one in items] == [
        (0, 1, "000020000"),
        (1, 1, "000020001"),
        (2, 1, "000030000"),
    ]
    picture = http.get(f"/v1/jobs/{job_id}/items/5/picture")
    assert hashlib.sha256(picture.content).hexdigest() == items[2]["sha256"]
    assert http.get(f"/v1/jobs/{job_id}/items/6/picture").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}/rows/000020001").json()["row"]["repeat"] == 1
    api.redis.flushall()
    assert whole() == ("done", 6, 6)


def test_rows_are_added_from_a_file_and_from_values(
    http: httpx.Client, api: RunningApi, shop: Workshop, tmp_path: Path
) -> None:
    job_id = done_job(http, shop, set())
    table = tmp_path / "more.csv"
    table.write_text("caption,note\na black moon,x\n", "utf-8")
    reading = Reading(columns={"prompt": "caption"}, drop=("note",))

    with Client(api.url) as client:
        with pytest.raises(InvalidInput, match="no column 'note'"):
            client.extend(job_id, rows=table, source=Reading(columns={"prompt": "caption"}))
        with pytest.raises(InvalidInput, match=r"template.toml: the file cannot be read"):
            client.extend(job_id, rows=tmp_path / "template.toml")
        done = client.extend(job_id, rows=table, source=reading)
        with pytest.raises(Conflict, match="an extension of the job runs"):
            client.extend(job_id, rows=["a white moon"])
        render(shop, done.id, set())

        async def add() -> str:
            async with AsyncClient(api.url) as fewstep:
                return (await fewstep.extend(job_id, rows=["a white moon"])).id

        render(shop, asyncio.run(add()), set())
        prompts = [item["prompt"] for item in client.items(job_id)]
    assert prompts == [*PROMPTS, "a black moon", "a white moon"]


def test_rows_are_added_from_a_template_and_from_s3(
    api: RunningApi, shop: Workshop, tmp_path: Path
) -> None:
    template = TemplateRequest(template="a {{c}} star", lists={"c": ("red", "blue")})
    inbox = f"s3://{api.settings.s3_bucket}/inbox/"
    settings = api.settings.model_copy(update={"prompt_sources": inbox})
    with serving(settings) as url, Client(url) as client:
        job_id = client.submit(JobRequest(), template).id
        render(shop, job_id, set())
        path = tmp_path / "more.toml"
        path.write_text('template = "a {{c}} ring"\n[lists]\nc = ["gold"]\n', "utf-8")
        render(shop, client.extend(job_id, rows=path).id, set())
        lines = b'{"prompt": "a moon", "c": "white", "steps": 2}\n{"prompt": " "}\n'
        api.store.put("inbox/deep/rows.jsonl", lines)
        for place in (Stored(f"{inbox}deep/rows.jsonl"), Stored(f"{inbox}deep/")):
            with pytest.raises(InvalidInput, match=r"rows.jsonl, line 2"):
                client.extend(job_id, rows=place)
            done = client.extend(job_id, rows=place, source=Reading(bad_rows="quarantine"))
            assert "1 rows cannot be rendered" in done.warnings[0]
            render(shop, done.id, set())
        asked = client.extend(job_id, rows=["a {{c}} sun"], expand=Expansion(lists={"c": ("old",)}))
        render(shop, asked.id, set())
        prompts = [item["prompt"] for item in client.items(job_id)]
        timing = client.timing(job_id)
    assert prompts == [
        *("a red star", "a blue star", "a gold ring", "a moon", "a moon", "a old sun")
    ]
    assert (timing["steps"], len(timing["settings"])) == (None, 2)


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        ({}, 422, "repeats"),
        ({"expand": {}, "repeats": 1}, 422, "expand"),
        ({"expand": {"mode": "all"}, "repeats": 1}, 422, "expand.mode"),
        ({"template": {}}, 422, "template.template"),
        ({"template": {"template": "{a"}}, 422, "template, character 1"),
        ({"prompts_from": "s3://a/b.txt"}, 422, "prompts_from"),
        ({"prompts_from": {"uri": "s3://a/b.txt"}}, 422, "prompts_from"),
        ({"prompts_from": {"uri": "s3://a/b.txt"}, "prompts": ["a"]}, 422, "prompts_from"),
        ({"prompts": [{"prompt": "a", "steps": 99}]}, 422, "prompts, row 1, steps"),
        ({"repeats": 0}, 422, "repeats"),
        ({"repeats": -1}, 422, "repeats"),
        ({"repeats": "4"}, 422, "repeats"),
        ({"rows": 4}, 422, "rows"),
        ({"prompts": "a star"}, 422, "prompts"),
        ({"prompts": []}, 422, "prompts"),
        ({"repeats": 1, "prompts": ["a star"]}, 422, "repeats"),
    ],
)
def test_what_is_no_extension_is_refused(
    http: httpx.Client, body: dict[str, object], status: int, where: str
) -> None:
    job_id = http.post("/v1/jobs", json={"prompts": PROMPTS}).json()["id"]
    reply = http.post(f"/v1/jobs/{job_id}/extend", json=body)
    assert (reply.status_code, reply.json()["where"]) == (status, where)


def test_rows_are_dropped_and_put_back(http: httpx.Client, api: RunningApi, shop: Workshop) -> None:
    job_id = done_job(http, shop, {2})
    with Client(api.url) as client:
        seen = client.drop(job_id, "prompt contains 'star'", dry_run=True)
        assert (seen["id"], seen["dropped"], seen["examples"][0]["image"]) == ("", 1, 1)
        with pytest.raises(InvalidInput, match="no column 'colour'"):
            client.drop(job_id, "colour = 'red'")
        done = client.drop(job_id, "prompt contains 'star'", idempotency_key="mine")
        again = client.drop(job_id, "prompt contains 'star'", idempotency_key="mine")
        assert (done["id"], done["created"], done["dropped"]) == (f"{job_id}-r1", True, 1)
        assert again["created"] is False
        view = client.job(f"{job_id}-r1")
        assert (view.name, view.state, view.done) == ("shapes (drop 1)", "done", 1)
        states = [item["status"] for item in client.items(job_id)]
        assert states == ["ok", "dropped", "failed"]

        async def undo() -> int:
            async with AsyncClient(api.url) as fewstep:
                return int((await fewstep.undo_drop(job_id))["dropped"])

        assert asyncio.run(undo()) == 1
        assert [item["status"] for item in client.items(job_id)] == ["ok", "ok", "failed"]
    assert http.get(f"/jobs/{job_id}/pictures").status_code == 200
    for body in ({}, {"where": ""}, {"where": 1}, {"where": "a", "more": 1}):
        assert http.post(f"/v1/jobs/{job_id}/drop", json=body).status_code == 422
