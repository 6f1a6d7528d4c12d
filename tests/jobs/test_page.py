"""The page without a browser: sessions, foreign forms and tenants, hostile strings, headers."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from jobs.again import request_of
from jobs.catalog import load_catalog
from jobs.items import Item
from jobs.keys import make_key
from jobs.page.form import request_from, values_again
from jobs.page.mount import PARTS
from jobs.page.rendering import POLICY, STATIC
from jobs.page.routes_sign_in import own_path
from jobs.page.visitor import COOKIE
from jobs.recipe import RecipeRequest
from jobs.sessions import SESSION_S, SessionSigner
from tests.api_calls import BODY, submit
from tests.api_keys import KeyedApi
from tests.api_renderer import finish_dataset, job_of, render_shards
from tests.api_servers import RunningApi, serving
from tests.jobs.test_hostile_text import HOSTILE
from tests.made_shards import made_job

ROOT = Path(__file__).resolve().parents[2]

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
NEVER = {"job_id": "a" * 26, "image": "0", "shard": "0", "what": "cancel"}
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


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", f"/jobs/{'a' * 26}/course/cancel"])
def test_a_stranger_s_long_form_is_not_read(keyed: KeyedApi, path: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with httpx.Client(base_url=keyed.url, trust_env=False) as http:
        long = http.post(path, data={"key": "a" * 20_000})
        # In pieces, so that nobody knows how long it will be.
        endless = http.post(path, content=iter([b"key=a"]), headers=form)
    assert (long.status_code, long.text) == (413, "This form has at most 16384 bytes.\n")
    assert endless.status_code == 413


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


class Shape(HTMLParser):
    """The tags of a page with the names of their attributes, and all its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *sorted(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def job_of_texts(api: RunningApi, http: httpx.Client, name: str, texts: list[str]) -> str:
    """A finished job with a row of each of these texts, and a failed image of each."""
    rows = [{"prompt": one, "negative_prompt": one, "label": one} for one in texts]
    job_id = submit(http, {"job": {"name": name, "repeats": 2}, "prompts": rows})
    render_shards(api, job_id, failed=range(1, 2 * len(texts), 2))
    finish_dataset(api, job_id)
    return job_id


#: Pages that show texts of a job.
HOSTILE_PAGES = (
    "/jobs/{job}",
    "/jobs/{job}/pictures",
    "/jobs/{job}/failed",
    "/jobs/{job}/timing",
    "/jobs/{job}/coverage",
    "/jobs/{job}/shards",
    "/jobs/{job}/change",
)
TEXTS = [text for text in HOSTILE.values() if not {"\x00", "\ud800"} & set(text)]


def test_hostile_texts_change_no_tag_of_any_page(api: RunningApi, http: httpx.Client) -> None:
    """Whatever a prompt, a column or a name holds, a page has the tags it has for a plain one."""
    # As many values, and as many of them too long to be labels.
    plain_texts = [f"{n}".ljust(len(one) if len(one) > 100 else 1) for n, one in enumerate(TEXTS)]
    plain = job_of_texts(api, http, "plain", [one.replace(" ", "x") for one in plain_texts])
    hostile = job_of_texts(api, http, TEXTS[0][:100], TEXTS)
    pages = [*HOSTILE_PAGES]
    for index in range(0, 2 * len(TEXTS), 2):
        pages += [f"/jobs/{{job}}/pictures/{index}", f"/new?job={{job}}&image={index}"]
    for path in pages:
        one, other = (http.get(path.format(job=job)) for job in (plain, hostile))
        assert (one.status_code, other.status_code) == (200, 200), path
        shape = Shape(other.text)
        assert shape.tags == Shape(one.text).tags, path
        if path.startswith("/jobs/{job}/pictures/"):
            text = TEXTS[int(path.rpartition("/")[2]) // 2]
            assert " ".join(text.split())[:200] in " ".join(shape.text.split()), path


def test_hostile_names_change_no_tag_of_the_list(http: httpx.Client) -> None:
    names = [text[:200] for text in TEXTS if text[:200].isprintable()]
    lists = []
    for some in (["plain"] * len(names), names):
        for name in some:
            submit(http, {"job": {"name": name}, "prompts": ["a"]})
        lists.append(Shape(http.get(f"/?name={'plain' if some[0] == 'plain' else ''}").text))
    shown = " ".join(lists[1].text.split())
    assert all(" ".join(name.split()) in shown for name in names)
    assert {*lists[1].tags} == {*lists[0].tags}


@pytest.mark.parametrize("text", [*TEXTS, "nul \x00"])
def test_hostile_texts_in_addresses_and_forms(http: httpx.Client, text: str) -> None:
    job_id = submit(http)
    plain = Shape(http.get("/", params={"name": "x"}).text).tags
    found = http.get("/", params={"name": text[:200]})
    assert Shape(found.text).tags == plain
    for path in (f"/jobs/{job_id}/pictures", f"/jobs/{job_id}/failed", "/new", "/sign-in"):
        for field in ("prompt", "cursor", "job", "image", "first", "back"):
            reply = http.get(path, params={field: text[:300]})
            assert reply.status_code in (200, 303, 404, 422), f"{path} {field}"
            assert "<img src=x" not in reply.text
    fields = dict.fromkeys(("name", "model", "steps", "seed", "style:x", "format", "key"), text)
    for path in ("/new", "/new/preview"):
        form = {name: (None, value.encode("utf-8", "ignore")) for name, value in fields.items()}
        reply = http.post(path, files=form, headers={"Origin": str(http.base_url).rstrip("/")})
        assert reply.status_code in (200, 413, 422), f"{path}: {reply.status_code}"
        assert "<img src=x" not in reply.text


def test_a_picture_is_made_again_by_what_its_page_says(
    api: RunningApi, http: httpx.Client, tmp_path: Path
) -> None:
    """The command of a picture's page, run by a shell, asks for the same recipe and seed."""
    recipe = {"steps": 8, "guidance": 1.5, "styles": [{"name": "outline", "weight": 0.7}]}
    prompt = 'it\'s a "star" $(touch x) \x1b[31m\u202e %s\\n'
    row = {"prompt": prompt, "negative_prompt": "a 'blur'"}
    first = submit(http, {"job": {"recipe": recipe, "format": "webp"}, "prompts": [row]})
    text = re.search(r"<pre[^>]*>(.*?)</pre>", http.get(f"/jobs/{first}/pictures/0").text, re.S)
    assert text
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FEWSTEP_API_URL": api.url,
        "FEWSTEP_HOME": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", unescape(text[1])],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    second = done.stdout.strip()
    one, other = (http.get(f"/v1/jobs/{job}").json()["recipe"] for job in (first, second))
    assert one == other
    (made,), (again,) = (http.get(f"/v1/jobs/{j}/items").json()["items"] for j in (first, second))
    assert (made["prompt"], made["seed"]) == (again["prompt"], again["seed"])
    assert job_of(api, second).format == "webp"
    assert list(tmp_path.glob("x")) == []


class Fields(HTMLParser):
    """What a browser would send of a form as it was served."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._name = ""
        self._area = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "input" and "name" in found and found.get("type") != "file":
            self.values[found["name"]] = found.get("value", "")
        elif tag in ("select", "textarea"):
            self._name, self._area = found["name"], tag == "textarea"
            self.values[self._name] = ""
        elif tag == "option":
            self._option = found.get("value"), "selected" in found

    def handle_data(self, data: str) -> None:
        if self._area:
            self.values[self._name] += data
        elif self._name and self.lasttag == "option" and self._option[1]:
            self.values[self._name] = data if self._option[0] is None else self._option[0]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("select", "textarea"):
            self._name, self._area = "", False


@pytest.mark.parametrize(
    "recipe",
    [
        {"accelerator": "none", "sampler": "euler", "dtype": "bfloat16", "guidance": 3.25},
        {"styles": [{"name": "outline", "weight": 0.12345678}]},
    ],
)
def test_the_form_makes_a_picture_again_with_the_whole_recipe(
    http: httpx.Client, recipe: dict[str, object]
) -> None:
    first = submit(http, {"job": {"recipe": recipe}, "prompts": ["a red circle"]})
    fields = Fields(http.get(f"/new?job={first}&image=0").text).values
    reply = http.post(
        "/new",
        files={name: (None, value) for name, value in fields.items()},
        headers={"Origin": str(http.base_url).rstrip("/")},
    )
    assert reply.status_code == 303, reply.text
    one, other = (
        http.get(f"/v1{path}").json() for path in (f"/jobs/{first}", reply.headers["location"])
    )
    assert one["recipe"] == other["recipe"]


@pytest.mark.parametrize(
    "asked",
    [
        RecipeRequest(model="sd15", accelerator="tcd-sd15", eta=0.7),
        RecipeRequest(model="sdxl", vae="own", dtype="float32"),
    ],
)
def test_a_form_asks_for_all_that_decides_pixels(asked: RecipeRequest) -> None:
    catalog = load_catalog(allow_noncommercial=True)
    job = made_job().model_copy(update={"recipe": catalog.resolve(asked)})
    item = Item(image=0, row=0, repeat=0, status="ok", key="0", prompt="a", seed=1)
    again = request_from(values_again(catalog, job, item, ""))
    assert catalog.resolve(again.recipe) == job.recipe


def test_search_goes_on_where_it_stopped(http: httpx.Client) -> None:
    prompts = [f"{'a star' if number % 10 == 3 else 'nothing'} {number}" for number in range(50)]
    job_id = submit(http, {"job": {"repeats": 3}, "prompts": prompts})
    found, first = [], 0
    while first is not None:
        page = http.get(
            f"/v1/jobs/{job_id}/items", params={"prompt": "STAR", "first": first, "limit": 4}
        ).json()
        found += [item["image"] for item in page["items"]]
        first = page["next"]
    assert found == [3 * row + repeat for row in range(3, 50, 10) for repeat in range(3)]


@pytest.mark.parametrize("name", load_catalog().models)
def test_the_shortest_request_means_the_same_recipe(name: str) -> None:
    catalog = load_catalog(allow_noncommercial=True)
    for asked in (
        RecipeRequest(model=name),
        RecipeRequest(model=name, accelerator="none", steps=7, guidance=3.0),
        RecipeRequest(model=name, accelerator="none", sampler="euler"),
    ):
        recipe = catalog.resolve(asked)
        short = request_of(catalog, recipe)
        assert catalog.resolve(short) == recipe
    assert request_of(catalog, catalog.resolve(RecipeRequest(model=name))) == RecipeRequest(
        model=name
    )


def test_behind_tls_the_cookie_is_sent_by_tls_alone(api: RunningApi, keyed: KeyedApi) -> None:
    key = keyed.make("ann")
    changes = {"keys": "required", "api_url": "https://pictures.example"}
    with serving(api.settings.model_copy(update=changes)) as address:
        for url, secure in ((keyed.url, False), (address, True)):
            reply = httpx.post(
                f"{url}/sign-in",
                data={"key": key},
                headers={"Origin": url},
                trust_env=False,
                timeout=60,
            )
            cookie = reply.headers["set-cookie"]
            assert ("Secure" in cookie) == secure
            assert "HttpOnly" in cookie
            assert "SameSite=strict" in cookie


def test_what_waits_is_named_where_no_renderer_tells(http: httpx.Client) -> None:
    submit(http, {"job": {"recipe": {"styles": [{"name": "outline"}]}}, "prompts": ["a"]})
    assert "tiny + lcm-tiny + outline" in http.get("/cluster").text


def test_who_has_signed_out_is_shown_no_kept_picture(keyed: KeyedApi) -> None:
    key = keyed.make("ann")
    with keyed.visit(key) as http:
        mine = submit(http)
    render_shards(keyed.api, mine)
    with signed_in(keyed, key) as http:
        for path in (f"/jobs/{mine}/pictures/0/thumb", f"/jobs/{mine}/pictures/0/file"):
            kept = http.get(path)
            assert kept.headers["cache-control"] == "private, no-cache"
            tag = {"If-None-Match": kept.headers["etag"]}
            again = http.get(path, headers=tag)
            assert (again.status_code, again.content) == (304, b"")
        out = http.post("/sign-out")
        assert out.headers["clear-site-data"] == '"cache"'
        assert http.get(path, headers=tag).status_code == 303
