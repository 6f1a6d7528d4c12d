"""Two tenants tried against each other on every route, and what a key may and may not do."""

import json
from typing import Any

import httpx
import pytest

from jobs.client import Client
from jobs.errors import Forbidden, NoAccess, QuotaExceeded
from jobs.job import JobRequest
from jobs.webhooks import HookStore
from tests.api_calls import BODY
from tests.api_keys import KeyedApi

#: Routes that ask for no key: they tell nothing of anybody's work.
OPEN = {"/healthz", "/readyz"}
#: Routes for operators alone.
ADMIN = {"/v1/cluster", "/metrics"}
#: Ids in paths, of what never was.
NEVER = {
    "job_id": "a" * 26,
    "image": "0",
    "key": "000000000",
    "file_id": f"file-{'a' * 24}",
    "batch_id": f"batch_{'a' * 24}",
    "webhook_id": f"hook_{'a' * 24}",
}
#: What each route that reads a body is sent.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/jobs": {"json": BODY},
    "/v1/jobs/{job_id}": {"json": {"priority": 9}},
    "/v1/jobs/{job_id}/extend": {"json": {"repeats": 1}},
    "/v1/jobs/{job_id}/drop": {"json": {"where": "seed > 1"}},
    # Not https: refused, and so by the scope alone where that is missing.
    "/v1/webhooks": {"json": {"url": "ftp://example.org/"}},
    "/v1/files": {"files": {"file": ("a.jsonl", b"{}"), "purpose": (None, "batch")}},
    "/v1/batches": {
        "json": {
            "input_file_id": NEVER["file_id"],
            "endpoint": "/v1/images/generations",
            "completion_window": "24h",
        }
    },
    # Refused before any job is made, so that nobody waits for a picture.
    "/v1/images/generations": {"json": {"prompt": "a", "model": "none-such"}},
}

#: What a route must be asked with.
QUERIES: dict[str, dict[str, Any]] = {"/v1/jobs/{job_id}/contact-sheet": {"params": {"shard": 0}}}


def operations(keyed: KeyedApi) -> list[tuple[str, str]]:
    """Method and path of every operation of the API."""
    with keyed.visit("") as http:
        paths = http.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, operation in paths.items() for method in operation]


def call(http: httpx.Client, method: str, path: str, names: dict[str, str]) -> httpx.Response:
    """Call an operation with these ids in its path; KeyError for a parameter that is not here."""
    body = BODIES.get(path, {}) if method != "GET" else QUERIES.get(path, {})
    request = http.build_request(method, path.format_map(names), **body)
    reply = http.send(request, stream=True)
    # A stream of events goes on until its job ends.
    if not reply.headers["content-type"].startswith("text/event-stream"):
        reply.read()
    reply.close()
    return reply


def code_of(reply: httpx.Response) -> str:
    """The error's code, in our form or in OpenAI's."""
    body = reply.json()
    return str(body.get("error", body)["code"])


def test_no_route_opens_without_a_key(keyed: KeyedApi) -> None:
    with keyed.visit("") as http:
        for method, path in operations(keyed):
            reply = call(http, method, path, NEVER)
            if path in OPEN:
                assert reply.status_code == 200, path
            else:
                assert (reply.status_code, code_of(reply)) == (401, "unauthorized"), path
                assert reply.headers["www-authenticate"] == "Bearer"


def openai_names(http: httpx.Client) -> dict[str, str]:
    """A file and a batch of a tenant's own, by the names of their path parameters."""
    line = {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/images/generations",
        "body": {"model": "tiny", "prompt": "a"},
    }
    form = {"file": ("a.jsonl", json.dumps(line).encode()), "purpose": (None, "batch")}
    file_id = http.post("/v1/files", files=form).json()["id"]
    asked = {
        "input_file_id": file_id,
        "endpoint": "/v1/images/generations",
        "completion_window": "24h",
    }
    batch = http.post("/v1/batches", json=asked).json()
    assert batch["status"] == "in_progress", batch
    return {"file_id": file_id, "batch_id": batch["id"]}


def test_no_tenant_reaches_anothers_job_on_any_route(keyed: KeyedApi) -> None:
    ann, bob = keyed.make("ann"), keyed.make("bob")
    with keyed.visit(ann) as hers, keyed.visit(bob) as his:
        mine = hers.post("/v1/jobs", json=BODY).json()["id"]
        owned = NEVER | {"job_id": mine} | openai_names(hers)
        hooks = HookStore(keyed.api.store, keyed.api.settings.s3_prefix)
        owned["webhook_id"] = hooks.add("ann", "https://example.org/", ("job.failed",), 1).id
        before = hers.get(f"/v1/jobs/{mine}").json()
        tried = 0
        for method, path in operations(keyed):
            if "{" not in path:
                continue
            strange = call(his, method, path, owned)
            never = call(his, method, path, NEVER)
            assert strange.status_code == 404, f"{method} {path}: {strange.text}"
            # Nothing tells a job of somebody else's from one that never was.
            text = strange.text
            for name, value in owned.items():
                text = text.replace(value, NEVER[name]) if name not in ("image", "key") else text
            assert text == never.text, path
            tried += 1
        after = hers.get(f"/v1/jobs/{mine}").json()

        assert tried >= 15
        assert after == before
        assert his.get("/v1/jobs").json()["jobs"] == []
        assert his.get("/v1/files").json()["data"] == his.get("/v1/batches").json()["data"] == []
        assert len(hers.get("/v1/webhooks").json()["webhooks"]) == 1
        assert his.get("/v1/webhooks").json()["webhooks"] == []
        assert hers.get(f"/v1/files/{owned['file_id']}").status_code == 200
        assert hers.get(f"/v1/batches/{owned['batch_id']}").json()["status"] == "in_progress"
        assert mine in [job["id"] for job in hers.get("/v1/jobs").json()["jobs"]]


def test_the_same_idempotency_key_of_two_tenants_is_two_jobs(keyed: KeyedApi) -> None:
    key = {"Idempotency-Key": "one"}
    with keyed.visit(keyed.make("ann")) as hers, keyed.visit(keyed.make("bob")) as his:
        first = hers.post("/v1/jobs", json=BODY, headers=key).json()
        second = his.post("/v1/jobs", json=BODY | {"prompts": ["b"]}, headers=key).json()

        assert (first["created"], second["created"]) == (True, True)
        assert first["id"] != second["id"]
        prefix = hers.get(f"/v1/jobs/{first['id']}").json()["prefix"]
        assert prefix == f"{keyed.api.settings.s3_prefix}/ann/{first['id']}/"


def test_a_key_does_what_its_scopes_say(keyed: KeyedApi) -> None:
    reader, writer = keyed.make("ann", ("read",)), keyed.make("ann", ("submit",))
    admin = keyed.make("ann", ("admin",))
    with keyed.visit(reader) as reads, keyed.visit(writer) as writes, keyed.visit(admin) as rules:
        names = NEVER | {"job_id": rules.post("/v1/jobs", json=BODY).json()["id"]}
        for method, path in operations(keyed):
            if path in OPEN:
                continue
            replies = (call(one, method, path, names) for one in (reads, writes))
            shows, changes = (reply.status_code for reply in replies)
            assert (shows == 403) == (method != "GET" or path in ADMIN), f"{method} {path}"
            assert (changes == 403) == (method == "GET"), f"{method} {path}"
            assert call(rules, method, path, names).status_code != 403


@pytest.mark.parametrize("spoil", ["other secret", "revoked", "run out", "no key", "basic"])
def test_a_key_that_opens_nothing_learns_nothing(keyed: KeyedApi, spoil: str) -> None:
    good = keyed.make("ann")
    key_id = good.split("_")[1]
    text = good
    if spoil == "other secret":
        text = good[:-43] + "A" * 43
    elif spoil == "revoked":
        keyed.keys.revoke(key_id, 1)
    elif spoil == "run out":
        text = keyed.make("ann", expires_ms=1)
    elif spoil == "no key":
        text = "fewstep_" + "a" * 12 + "_" + "A" * 43
    with httpx.Client(base_url=keyed.url, trust_env=False) as http:
        scheme = "Basic" if spoil == "basic" else "Bearer"
        reply = http.get("/v1/jobs", headers={"Authorization": f"{scheme} {text}"})

    assert reply.status_code == 401
    assert reply.json()["detail"] == "the request bears no key that opens anything here"


def test_a_key_that_sends_too_fast_is_told_when_to_come_again(keyed: KeyedApi) -> None:
    with keyed.visit(keyed.make("ann", requests_a_minute=6)) as http:
        assert http.get("/v1/models").status_code == 200
        reply = http.get("/v1/models")

    assert (reply.status_code, reply.json()["code"]) == (429, "too_many_requests")
    assert 1 <= int(reply.headers["retry-after"]) <= 10


def test_a_tenant_has_as_many_open_jobs_as_it_may(keyed: KeyedApi) -> None:
    keyed.grant("ann", open_jobs=1)
    key = {"Idempotency-Key": "second"}
    with keyed.visit(keyed.make("ann")) as hers, keyed.visit(keyed.make("bob")) as his:
        first = hers.post("/v1/jobs", json=BODY).json()["id"]
        full = hers.post("/v1/jobs", json=BODY, headers=key)
        assert (full.status_code, full.json()["where"]) == (429, "open_jobs")
        assert "retry-after" in full.headers
        assert his.post("/v1/jobs", json=BODY).status_code == 202

        hers.post(f"/v1/jobs/{first}/cancel")
        assert keyed.api.queue.finish(first, "cancelled") == "ok"
        assert hers.post("/v1/jobs", json=BODY, headers=key).status_code == 202


def test_a_tenant_has_as_many_images_a_day_as_it_may(keyed: KeyedApi) -> None:
    keyed.grant("ann", images_a_day=7)
    key = {"Idempotency-Key": "one"}
    with keyed.visit(keyed.make("ann")) as hers:
        assert hers.post("/v1/jobs", json=BODY, headers=key).status_code == 202
        assert hers.post("/v1/jobs", json=BODY, headers=key).status_code == 202
        written = keyed.api.written()
        over = hers.post("/v1/jobs", json=BODY)

    assert (over.status_code, over.json()["code"]) == (429, "quota_exceeded")
    assert 0 < int(over.headers["retry-after"]) <= 86_400
    assert {key for key in keyed.api.written() - written if ":rate:" not in key} == set()


def test_share_and_shards_in_flight_reach_the_queue(keyed: KeyedApi) -> None:
    keyed.grant("ann", shards_in_flight=1, weight=2.5)
    with keyed.visit(keyed.make("ann")) as hers:
        job_id = hers.post("/v1/jobs", json=BODY).json()["id"]
        record = keyed.api.queue.job(job_id)
        assert record is not None
        leases = keyed.api.queue.claim("w", "n", record.engine_key, 64, 60_000)
        second = hers.post("/v1/jobs", json=BODY).json()["id"]
        reason = hers.get(f"/v1/jobs/{second}").json()["reason"]

    assert len(leases) == 1
    assert reason == "your quota: 1 of your shards are in flight, and no more may be"
    weight = keyed.api.redis.hget(keyed.api.queue.key("tenant:ann"), "weight")
    assert float(weight) == 2.5


def test_the_client_sends_its_key_and_names_what_is_wrong(keyed: KeyedApi) -> None:
    keyed.grant("ann", open_jobs=0)
    text, reader = keyed.make("ann"), keyed.make("ann", ("read",))
    with Client(keyed.url, key=text) as client:
        assert client.jobs() == []
        with pytest.raises(QuotaExceeded, match="jobs of yours are open"):
            client.submit(JobRequest(), ["a"])
    with Client(keyed.url, key=reader) as client, pytest.raises(Forbidden, match="submit"):
        client.submit(JobRequest(), ["a"])
    with Client(keyed.url) as client, pytest.raises(NoAccess, match="fewstep keys create"):
        client.jobs()
