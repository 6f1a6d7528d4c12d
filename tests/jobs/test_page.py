"""The page without a browser: sessions, foreign forms and tenants, hostile strings, headers."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from jobs.keys import make_key
from jobs.page.mount import PARTS
from jobs.page.rendering import POLICY, STATIC
from jobs.page.routes_sign_in import own_path
from jobs.page.visitor import COOKIE
from jobs.sessions import SESSION_S, SessionSigner
from tests.api_calls import BODY, submit
from tests.api_keys import KeyedApi
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi

#: Method and path of every route of the page.
ROUTES = [
    (method, route.path)
    for part in PARTS
    for route in part.router.routes
    for method in sorted(route.methods)  # type: ignore[attr-defined]
]
OPEN = {"/sign-in", "/sign-out"}
#: For operators alone.
ADMIN = {"/cluster"}
NEVER = {"job_id": "a" * 26, "image": "0", "what": "cancel"}
#: The fields of forms, where a route needs any.
FORMS: dict[str, dict[str, str]] = {"/jobs/{job_id}/course/priority": {"number": "9"}}


@contextmanager
def signed_in(keyed: KeyedApi, key: str) -> Iterator[httpx.Client]:
    """A client that a browser stands for: a session's cookie, and its own page's origin."""
    headers = {"Origin": keyed.url}
    with httpx.Client(base_url=keyed.url, headers=headers, trust_env=False, timeout=60) as http:
        reply = http.post("/sign-in", data={"key": key})
        assert reply.status_code == 303, reply.text
        yield http


def call(http: httpx.Client, method: str, path: str, names: dict[str, str]) -> httpx.Response:
    """Call a route with these names in its path, without reading a stream."""
    data = FORMS.get(path, {}) if method == "POST" else None
    request = http.build_request(method, path.format_map(names), data=data)
    reply = http.send(request, stream=True)
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):
        reply.read()
    reply.close()
    return reply


def test_no_page_opens_without_a_session(keyed: KeyedApi) -> None:
    with httpx.Client(base_url=keyed.url, headers={"Origin": keyed.url}, trust_env=False) as http:
        for method, path in ROUTES:
            if path in OPEN:
                continue
            reply = call(http, method, path, NEVER)
            assert reply.status_code == 303, f"{method} {path}"
            assert reply.headers["location"].startswith("/sign-in?back=/")


def test_a_key_in_a_header_opens_no_page_and_a_session_no_api(keyed: KeyedApi) -> None:
    """A cookie that the REST API took would need a guard on each of its routes."""
    key = keyed.make("ann")
    with keyed.visit(key) as http:
        assert http.get("/").status_code == 303
    with signed_in(keyed, key) as http:
        assert http.get("/").status_code == 200
        assert http.get("/v1/jobs").status_code == 401


def test_no_tenant_sees_or_changes_anothers_job(keyed: KeyedApi) -> None:
    ann, bob = keyed.make("ann"), keyed.make("bob")
    with signed_in(keyed, ann) as hers, signed_in(keyed, bob) as his:
        with keyed.visit(ann) as http:
            job = {"name": "only hers", "repeats": 2, "shard_images": 2}
            mine = submit(http, BODY | {"job": job})
        render_shards(keyed.api, mine, shards=1)
        tried = 0
        for method, path in ROUTES:
            if "{" not in path:
                continue
            strange = call(his, method, path, NEVER | {"job_id": mine})
            never = call(his, method, path, NEVER)
            assert strange.status_code == 404, f"{method} {path}: {strange.status_code}"
            assert strange.text.replace(mine, NEVER["job_id"]) == never.text, path
            tried += 1
        assert tried >= 8
        assert "only hers" in hers.get("/").text
        assert "only hers" not in his.get("/").text
        page = hers.get(f"/jobs/{mine}").text
        assert ">running<" in page
        assert hers.get(f"/jobs/{mine}/pictures/0/thumb").headers["content-type"] == "image/png"


def test_scopes_hold_on_every_page(keyed: KeyedApi) -> None:
    reader, writer = keyed.make("ann", ("read",)), keyed.make("ann", ("submit",))
    with signed_in(keyed, reader) as reads, signed_in(keyed, writer) as writes:
        for method, path in ROUTES:
            if path in OPEN:
                continue
            shows = call(reads, method, path, NEVER).status_code
            changes = call(writes, method, path, NEVER).status_code
            assert (shows == 403) == (method != "GET" or path in ADMIN), f"{method} {path}"
            assert (changes == 403) == (method == "GET"), f"{method} {path}"


FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://[broken"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
]


def test_no_other_sites_form_changes_anything(keyed: KeyedApi) -> None:
    with signed_in(keyed, keyed.make("ann")) as http:
        for method, path in ROUTES:
            for headers in FOREIGN if method == "POST" else ():
                request = http.build_request("POST", path.format_map(NEVER), headers=headers)
                assert http.send(request).status_code == 403, f"{path} {headers}"


def test_a_session_ends_with_its_key_and_by_itself(keyed: KeyedApi) -> None:
    key, _ = make_key("ann", ("read",), now_ms=1)
    keyed.keys.add(key)
    signer = SessionSigner(keyed.api.store, keyed.api.settings.s3_prefix)
    good, old = signer.session(key), signer.session(key, -1)
    until = good.split(".")[1]
    texts = {
        good: 200,
        old: 303,
        good[:-1] + ("0" if good[-1] != "0" else "1"): 303,
        good.replace(until, str(int(until) + 1)): 303,
        "": 303,
        "x" * 5_000: 303,
    }
    with httpx.Client(base_url=keyed.url, trust_env=False) as http:
        for text, status in texts.items():
            reply = http.get("/", headers={"Cookie": f"{COOKIE}={text}"})
            assert reply.status_code == status, text[:80]
    assert int(until) <= 2_000_000_000 + SESSION_S
    keyed.keys.revoke(key.id, 1)
    revoked = keyed.keys.keys()[key.id]
    assert not revoked.lives(2)
    assert not signer.opens(good, revoked.model_copy(update={"sha256": "0" * 64}))


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:1", "", "\n/"]
)
def test_a_sign_in_leads_nowhere_else(back: str) -> None:
    assert own_path(back) == "/"


def test_a_sign_in_leads_back() -> None:
    assert own_path("/jobs/abc") == "/jobs/abc"


def test_pages_are_closed_to_scripts_and_frames(api: RunningApi, http: httpx.Client) -> None:
    job_id = submit(http)
    render_shards(api, job_id)
    finish_dataset(api, job_id)
    pages = [path for method, path in ROUTES if method == "GET" and path not in OPEN]
    for path in pages:
        reply = call(http, "GET", path, NEVER | {"job_id": job_id})
        assert reply.status_code == 200, path
        assert reply.headers["x-content-type-options"] == "nosniff", path
        if reply.headers["content-type"].startswith("text/html"):
            assert reply.headers["content-security-policy"] == POLICY
            assert reply.headers["cache-control"] == "no-store"
            for forbidden in ("<script>", " style=", " onclick=", "<style", "javascript:"):
                assert forbidden not in reply.text, path
    assert "unsafe" not in POLICY


def test_what_is_wrong_is_a_page_too(http: httpx.Client) -> None:
    for path, status in {
        "/jobs/" + "a" * 26: 404,
        "/jobs/<script>": 404,
        "/?state=<script>": 422,
        "/?cursor=x": 422,
    }.items():
        reply = http.get(path)
        assert reply.status_code == status, path
        assert reply.headers["content-type"].startswith("text/html"), path
        assert "<script>" not in reply.text.replace("<script src=", "")


def test_files_of_others_are_as_they_came() -> None:
    lines = (STATIC / "SOURCES.txt").read_text("utf-8").splitlines()[2:]
    for name, _, _, digest in (line.split() for line in lines):
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name
    named = {line.split()[0] for line in lines}
    theirs = {path.name for path in STATIC.iterdir() if path.suffix in (".js", ".woff2")}
    assert theirs - named == {"page.js"}
