"""The API over HTTP: what each route answers, from submission to the finished dataset."""

import json

import httpx
import pytest

from jobs.api.__main__ import main
from jobs.queue_placement import Placement
from jobs.rows import Row
from tests.api_calls import BODY, engine_of, finish, layout_of, render, show, submit
from tests.api_servers import RunningApi

# ---- submitting ----


def test_a_submission_answers_with_its_links(http: httpx.Client) -> None:
    reply = http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "one"})

    body = reply.json()
    assert reply.status_code == 202
    assert (body["created"], body["images"], body["shards"]) == (True, 4, 2)
    assert reply.headers["location"] == body["links"]["status"] == f"/v1/jobs/{body['id']}"
    assert http.get(body["links"]["status"]).json()["id"] == body["id"]
    assert http.get(body["links"]["results"]).status_code == 409
    assert http.post(body["links"]["cancel"]).json()["state"] == "cancelling"


def test_the_same_key_is_the_same_job_and_another_body_a_conflict(http: httpx.Client) -> None:
    key = {"Idempotency-Key": "one"}
    first = http.post("/v1/jobs", json=BODY, headers=key).json()
    again = http.post("/v1/jobs", json=BODY, headers=key).json()
    other = http.post("/v1/jobs", json=BODY | {"prompts": ["c"]}, headers=key)

    assert (again["id"], again["created"]) == (first["id"], False)
    assert other.status_code == 409
    assert other.json()["code"] == "conflict"
    assert first["id"] in other.json()["detail"]


def test_without_a_key_every_request_is_a_job(http: httpx.Client) -> None:
    assert submit(http) != submit(http)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.txt", "\ufeffa red circle\r\na blue star\n\n".encode()),
        ("rows.JSONL", b'{"prompt": "a red circle"}\n{"prompt": "a blue star"}'),
    ],
    ids=["text", "jsonl"],
)
def test_a_prompt_file_becomes_the_jobs_rows(
    http: httpx.Client, api: RunningApi, name: str, content: bytes
) -> None:
    parts = {"job": (None, json.dumps({"repeats": 3})), "prompts": (name, content)}
    body = http.post("/v1/jobs", files=parts).json()

    assert body["images"] == 6
    page = next(iter(api.store.list(layout_of(api, body["id"]).scratch)))
    rows = [Row.model_validate_json(line) for line in api.store.get(page.key).splitlines()]
    assert [row.prompt for row in rows] == ["a red circle", "a blue star"]


def test_a_dry_run_checks_and_writes_nothing(http: httpx.Client, api: RunningApi) -> None:
    reply = http.post("/v1/jobs?dry_run=true", json=BODY)

    assert reply.status_code == 200
    assert (reply.json()["images"], reply.json()["links"]) == (4, {})
    assert api.written() == set()
    assert http.post("/v1/jobs?dry_run=true", json={"prompts": [" "]}).status_code == 422


# ---- showing ----


def test_a_waiting_job_says_why(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http)
    engine = engine_of(api, job_id)

    def reason() -> str:
        view = show(http, job_id)
        assert view["state"] == "waiting"
        return str(view["reason"])

    assert reason() == "no scheduler is running"
    api.queue.scheduler_beat()
    assert reason() == "scaling up: the scheduler is about to place it"
    api.queue.place(Placement(1, {}, {engine: 0}))
    assert reason() == "no renderer fits: other engines have all 1 places"
    api.queue.place(Placement(1, {engine: 1}, {engine: 1}))
    assert reason() == "scaling up: its renderer is being started"
    api.queue.heartbeat("w", {"engine_key": engine, "state": "loading"})
    assert reason() == "loading weights"
    api.queue.heartbeat("w", {"engine_key": engine, "state": "broken", "error": "no weights"})
    assert reason() == "its renderer cannot start: no weights"
    api.queue.heartbeat("w", {"engine_key": engine, "state": "rendering"})
    assert reason() == "its renderer takes it up next"
    first = submit(http, BODY | {"job": {"priority": 9}})
    (lease,) = api.queue.claim("w", "n", engine, 1, 60_000)
    assert lease.job_id == first
    assert reason() == "behind your own jobs"


def test_a_running_job_shows_progress_rate_and_time_left(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = submit(http)
    (lease,) = api.queue.claim("w", "n", engine_of(api, job_id), 1, 60_000)
    running = show(http, job_id)
    api.queue.done(job_id, lease.unit, lease.token, failed=1, device_ms=10)
    halfway = show(http, job_id)

    assert (running["state"], running["reason"], running["shards_running"]) == ("running", "", 1)
    assert running["images_per_second"] is None
    assert (halfway["done"], halfway["failed"], halfway["images"]) == (1, 1, 4)
    assert halfway["images_per_second"] > 0
    assert halfway["eta_s"] == pytest.approx(2 / halfway["images_per_second"])
    assert halfway["recipe"]["model"] == "tiny"


def test_jobs_are_listed_newest_first_in_pages(http: httpx.Client) -> None:
    ids = [submit(http) for _ in range(5)]
    http.post(f"/v1/jobs/{ids[0]}/pause")

    first = http.get("/v1/jobs?limit=3").json()
    second = http.get(f"/v1/jobs?limit=3&cursor={first['cursor']}").json()
    paused = http.get("/v1/jobs?state=paused").json()

    assert [job["id"] for job in first["jobs"] + second["jobs"]] == ids[::-1]
    assert second["cursor"] is None
    assert [job["id"] for job in paused["jobs"]] == [ids[0]]


def test_one_lost_job_file_hides_no_other_job(http: httpx.Client, api: RunningApi) -> None:
    ids = [submit(http), submit(http)]
    api.store.delete([layout_of(api, ids[0]).job])

    assert [job["id"] for job in http.get("/v1/jobs").json()["jobs"]] == [ids[1]]


# ---- changing its course ----


def test_pause_resume_and_priority(http: httpx.Client) -> None:
    job_id = submit(http)

    paused = http.post(f"/v1/jobs/{job_id}/pause").json()
    again = http.post(f"/v1/jobs/{job_id}/pause").json()
    resumed = http.post(f"/v1/jobs/{job_id}/resume").json()
    urgent = http.patch(f"/v1/jobs/{job_id}", json={"priority": 9}).json()

    assert (paused["state"], paused["reason"]) == ("paused", "paused")
    assert again["state"] == "paused"
    assert resumed["state"] == "waiting"
    assert urgent["priority"] == 9


def test_cancelling_may_be_repeated_and_is_final(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http)

    first = http.post(f"/v1/jobs/{job_id}/cancel").json()
    resumed = http.post(f"/v1/jobs/{job_id}/resume")
    assert api.queue.finish(job_id, "cancelled") == "ok"
    again = http.post(f"/v1/jobs/{job_id}/cancel").json()

    assert first["state"] == "cancelling"
    assert (resumed.status_code, resumed.json()["code"]) == (409, "conflict")
    assert again["state"] == "cancelled"


def test_a_job_whose_budget_is_spent_says_so(http: httpx.Client, api: RunningApi) -> None:
    body = {"job": {"shard_images": 2, "max_failed_rows": 0}, "prompts": ["a", "b", "c", "d"]}
    job_id = submit(http, body)
    spends, runs = api.queue.claim("w", "n", engine_of(api, job_id), 2, 60_000)
    api.queue.done(job_id, spends.unit, spends.token, failed=1)

    stopping = show(http, job_id)
    paused = http.post(f"/v1/jobs/{job_id}/pause")
    api.queue.fail(job_id, runs.unit, runs.token, "release")
    api.queue.finish(job_id, "failed", "because", counts=(1, 1))

    assert stopping["state"] == "stopping"
    assert stopping["reason"] == "1 images failed, 0 may: its running shards are ending"
    assert paused.status_code == 409
    failed = show(http, job_id)
    assert (failed["state"], failed["reason"], failed["failed"]) == ("failed", "because", 1)


def test_a_job_is_cancelled_with_what_is_done_of_it(http: httpx.Client, api: RunningApi) -> None:
    job_id, kept = submit(http), submit(http)

    first = http.post(f"/v1/jobs/{job_id}/cancel?shards=delete").json()
    late = (
        http.post(f"/v1/jobs/{kept}/cancel"),
        http.post(f"/v1/jobs/{kept}/cancel?shards=delete"),
    )
    wrong = http.post(f"/v1/jobs/{job_id}/cancel?shards=all")

    assert first["state"] == "cancelling"
    record = api.queue.job(job_id)
    assert record is not None
    assert record.discard
    assert [reply.status_code for reply in (*late, wrong)] == [200, 409, 422]


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "priority"])
def test_a_job_that_is_done_takes_no_orders(http: httpx.Client, api: RunningApi, verb: str) -> None:
    job_id = submit(http)
    render(api, job_id)
    finish(api, job_id)

    if verb == "priority":
        reply = http.patch(f"/v1/jobs/{job_id}", json={"priority": 1})
    else:
        reply = http.post(f"/v1/jobs/{job_id}/{verb}")

    assert reply.status_code == 409
    assert reply.json()["detail"] == "the job is done"


# ---- the house ----


def test_health_and_cluster(http: httpx.Client, api: RunningApi) -> None:
    submit(http)
    api.queue.scheduler_beat()
    api.queue.heartbeat("w", {"state": "rendering", "device": "cpu"})

    cluster = http.get("/v1/cluster").json()

    assert http.get("/healthz").json()["status"] == "ok"
    assert http.get("/readyz").json()["checks"] == {"redis": "ok", "store": "ok"}
    assert cluster["renderers"][0]["info"]["device"] == "cpu"
    assert cluster["backlog"][0]["images_waiting"] == 4
    assert 0 <= cluster["scheduler_age_ms"] < 10_000


@pytest.mark.parametrize(
    ("route", "name"),
    [
        *(("models", "tiny"), ("accelerators", "lcm-tiny"), ("styles", "outline")),
        ("filters", "near_duplicate"),
    ],
)
def test_the_catalog_is_listed(http: httpx.Client, route: str, name: str) -> None:
    assert name in http.get(f"/v1/{route}").json()


def test_every_operation_is_described(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    operations = [operation for path in document["paths"].values() for operation in path.values()]

    assert len(operations) == 44
    assert all(operation["summary"] and operation["description"] for operation in operations)
    assert {"JobRequest", "RecipeRequest", "Problem", "JobView"} <= set(schemas)
    named = json.dumps(document).split('"#/components/schemas/')[1:]
    assert {name.partition('"')[0] for name in named} <= set(schemas)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org"])
def test_it_refuses_to_listen_where_others_could_reach_it(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--host", host]) == 3
    assert "without keys, whoever reaches" in capsys.readouterr().err


def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEWSTEP_LEASE_MS", "soon")

    assert main([]) == 3
    assert "FEWSTEP_LEASE_MS" in capsys.readouterr().err
