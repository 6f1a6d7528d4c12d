"""Hostile text through every text field: it comes back as it was, or is refused; nothing breaks."""

import json
import re
from typing import Any

import httpx
import pytest

from tests.api_keys import KeyedApi
from tests.api_renderer import render_shards
from tests.api_servers import RunningApi

HOSTILE = {
    "markup": '<script>alert(1)</script><img src=x onerror="x">',
    "quotes": "'; DROP TABLE jobs; --\"`",
    "templates": "{{7*7}} ${7*7} %s %n {0} {tenant}",
    "shell": "$(touch /tmp/x) `id` | ; & > /dev/null",
    "paths": "../../etc/passwd\\..\\x %2e%2e%2f",
    "lua and keys": "{fewstep}:q1:job:x|1 ]] return redis.call('FLUSHALL')",
    "line ends": "a\u2028b\u2029c\u0085d",
    "right to left": "\u202egnp.exe\u202c \u200b\ufeff",
    "emoji": "👩‍👩‍👧‍👦 e\u0301 \U0010ffff",
    "formula": "=cmd|' /C calc'!A0",
    "json": '"}], {"prompt": "\\u0000',
    "long": "ж" * 7_000,
    "controls": "\x1b]0;title\x07\x1b[31m\r\n\tx",
    "nul": "a\x00b",
    "surrogate": "a\ud800b",
}


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def send(http: httpx.Client, path: str, body: Any, **more: Any) -> httpx.Response:
    """POST with escapes alone, so that halves of surrogate pairs get through to the server."""
    headers = {"Content-Type": "application/json"} | more.pop("headers", {})
    reply = http.post(path, content=json.dumps(body).encode(), headers=headers, **more)
    assert reply.status_code < 500, reply.text
    return reply


def refused(reply: httpx.Response, text: str) -> bool:
    """Whether it was refused, in a reply that does not give the text back at length."""
    if reply.status_code < 400:
        return False
    assert reply.headers["content-type"] in ("application/problem+json", "application/json")
    assert len(reply.text) < 2_000
    return True


def test_as_prompt_and_columns(http: httpx.Client, api: RunningApi, text: str) -> None:
    row = {"prompt": text, "negative_prompt": text, "label": text}
    reply = send(http, "/v1/jobs", {"job": {}, "prompts": [row]})
    if refused(reply, text):
        assert any(sign in text for sign in ("\x00", "\ud800"))
        assert api.written() == set()
        return
    job_id = reply.json()["id"]
    render_shards(api, job_id)

    (item,) = http.get(f"/v1/jobs/{job_id}/items").json()["items"]
    assert (item["prompt"], item["status"]) == (text, "ok")
    assert http.get(item["link"]).headers["content-type"] == "image/png"


def test_as_a_jobs_name_and_in_lists(http: httpx.Client, text: str) -> None:
    reply = send(http, "/v1/jobs", {"job": {"name": text}, "prompts": ["a"]})
    if refused(reply, text):
        return

    assert http.get(f"/v1/jobs/{reply.json()['id']}").json()["name"] == text
    (found,) = http.get("/v1/jobs", params={"name": text}).json()["jobs"]
    assert found["name"] == text
    assert http.get("/v1/jobs", params={"model": text[:150]}).json()["jobs"] == []


@pytest.mark.parametrize(
    "job",
    [
        lambda text: {"recipe": {"model": text}},
        lambda text: {"recipe": {"accelerator": text}},
        lambda text: {"recipe": {"styles": [{"name": text}]}},
        lambda text: {"format": text},
        lambda text: {text: 1},
    ],
    ids=["model", "accelerator", "style", "format", "field"],
)
def test_as_what_only_names_something(http: httpx.Client, text: str, job: Any) -> None:
    assert refused(send(http, "/v1/jobs", {"job": job(text), "prompts": ["a"]}), text)


def test_as_a_reference(http: httpx.Client, text: str) -> None:
    for place in ({"uri": text}, {"uri": f"s3://inbox/{text}.txt"}, {"uri": "s3://a/b", text: 1}):
        assert refused(send(http, "/v1/jobs", {"prompts_from": place}), text)


def test_in_addresses_and_headers(http: httpx.Client, text: str) -> None:
    safe = text.encode("utf-8", "ignore")
    for kind in ("jobs", "files", "batches"):
        reply = http.get(
            httpx.URL(http.base_url).copy_with(
                raw_path=b"/v1/"
                + kind.encode()
                + b"/"
                + b"".join(b"%%%02X" % byte for byte in safe[:200])
            )
        )
        assert reply.status_code in (404, 422), reply.text
    header = "".join(letter for letter in text if 32 <= ord(letter) < 127)[:100].strip()
    if not re.fullmatch("[A-Za-z0-9._-]+", header):
        reply = send(http, "/v1/jobs", {"prompts": ["a"]}, headers={"Idempotency-Key": header})
        assert refused(reply, text), header


def test_through_openais_routes(http: httpx.Client, text: str) -> None:
    line = {
        "custom_id": text,
        "method": "POST",
        "url": "/v1/images/generations",
        "body": {"prompt": "a", "user": text},
    }
    name = text.encode("utf-8", "ignore").decode().replace("\r", "").replace("\n", "")
    form = {"file": (name or "x", json.dumps(line).encode()), "purpose": (None, "batch")}
    file = http.post("/v1/files", files=form)
    assert file.status_code < 500, file.text
    if file.status_code >= 400:
        return
    assert file.json()["filename"].isprintable()
    asked = {
        "input_file_id": file.json()["id"],
        "endpoint": "/v1/images/generations",
        "completion_window": "24h",
        "metadata": {"note": text[:500]},
    }
    reply = send(http, "/v1/batches", asked)
    if refused(reply, text):
        assert "\ud800" in text
        return
    batch = http.get(f"/v1/batches/{reply.json()['id']}").json()
    assert batch["metadata"] == {"note": text[:500]}
    assert batch["status"] in ("in_progress", "failed")


def test_as_a_key(keyed: KeyedApi, text: str) -> None:
    header = "".join(letter for letter in text if 32 <= ord(letter) < 127)[:200]
    with httpx.Client(base_url=keyed.url, trust_env=False) as client:
        reply = client.get("/v1/jobs", headers={"Authorization": f"Bearer {header}".strip()})
    assert reply.status_code == 401


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "no-such"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/files", "/new/preview"])
def test_a_form_in_another_encoding_is_refused(http: httpx.Client, path: str, charset: str) -> None:
    """Some decode to half of a surrogate pair, which nothing of ours can write down."""
    part = '--x\r\nContent-Disposition: form-data; name="job"\r\n\r\n{"name": "%s"}\r\n'
    body = (part % r"+2AA- \ud800").encode() + b"--x--\r\n"
    kind = f'multipart/form-data; boundary=x; charset="{charset}"'
    headers = {"Content-Type": kind, "Origin": str(http.base_url).rstrip("/")}
    reply = http.post(path, content=body, headers=headers)
    assert reply.status_code == 400, reply.text
    assert "another encoding than UTF-8" in reply.text
