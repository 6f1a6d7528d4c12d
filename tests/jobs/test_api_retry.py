"""The API of retries: what it answers, and the views of a retry by its own id."""

import hashlib

import httpx
import pytest

from jobs.shard_queue import ShardQueue
from tests.api_calls import show
from tests.api_servers import RunningApi
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
