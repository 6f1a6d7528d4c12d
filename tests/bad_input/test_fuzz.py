"""Whatever a client sends, the API neither fails nor writes: requests made by hypothesis."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api_servers import RunningApi

ANY_TEXT = st.text(st.characters(codec=None), max_size=20)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**301)
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(["tiny", "lcm", "../x", "\x00", "\ud800", "{a}|b:c\n"])
)
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3)
)
NAMES = st.sampled_from(
    "recipe name repeats seed format quality shard_images priority model accelerator styles "
    "sampler steps guidance width height dtype prompt negative_prompt weight".split()
)
OBJECT = st.dictionaries(NAMES | ANY_TEXT, VALUE, max_size=4)
#: With a bad field in it at least, so that nothing can be accepted.
BODY = st.fixed_dictionaries(
    {"nonsense": LEAF},
    optional={"job": OBJECT | VALUE, "prompts": st.lists(OBJECT | VALUE) | VALUE},
) | st.fixed_dictionaries(
    {"prompts": st.just([]) | VALUE.filter(lambda value: not isinstance(value, list))},
    optional={
        "job": st.fixed_dictionaries({}, optional={"recipe": OBJECT, "seed": VALUE}) | OBJECT
    },
)
ROUTES = st.sampled_from(["/v1/jobs?dry_run=true", "/v1/jobs"])
JSON = {"Content-Type": "application/json"}
QUIET = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.usefixtures("untouched")
def test_no_body_makes_the_api_fail(seeded: RunningApi) -> None:
    with httpx.Client(base_url=seeded.url, trust_env=False, timeout=60) as client:

        @QUIET
        @given(BODY, ROUTES)
        def try_one(body: dict[str, Any], route: str) -> None:
            assert_refused(client.post(route, content=json.dumps(body), headers=JSON))

        try_one()


@pytest.mark.usefixtures("untouched")
def test_no_column_makes_the_api_fail(seeded: RunningApi) -> None:
    """What a dry run takes must be what could be written."""
    with httpx.Client(base_url=seeded.url, trust_env=False, timeout=60) as client:

        @QUIET
        @given(st.dictionaries(st.sampled_from(["mine", "yours"]), VALUE, min_size=1))
        def try_one(columns: dict[str, Any]) -> None:
            body = json.dumps({"prompts": [{"prompt": "a"} | columns]})
            reply = client.post("/v1/jobs?dry_run=true", content=body, headers=JSON)
            if reply.status_code != 200:
                assert_refused(reply)

        try_one()


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("depth", [100, 300, 900, 990, 1100, 3000, 100_000])
def test_no_depth_makes_the_api_fail(seeded: RunningApi, depth: int) -> None:
    line = b'{"prompt": "a", "mine": ' + b"[" * depth + b"]" * depth + b"}"
    inline = b'{"prompts": [' + line + b"]}"
    sent = ({"files": {"prompts": ("a.jsonl", line)}}, {"content": inline, "headers": JSON})
    for request in sent:
        reply = httpx.post(f"{seeded.url}/v1/jobs?dry_run=true", trust_env=False, **request)
        if reply.status_code != 200:
            assert_refused(reply)


@pytest.mark.usefixtures("untouched")
def test_no_query_or_path_makes_the_api_fail(seeded: RunningApi) -> None:
    with httpx.Client(base_url=seeded.url, trust_env=False, timeout=60) as client:

        @QUIET
        @given(st.text(max_size=30), st.sampled_from(["", "/events", "/results", "/cancel"]))
        def try_one(name: str, rest: str) -> None:
            path = "".join(f"%{byte:02x}" for byte in name.encode("utf-8", "replace")) or "%00"
            method = "POST" if rest == "/cancel" else "GET"
            reply = client.request(method, f"/v1/jobs/{path}{rest}")
            if not reply.is_redirect:  # a slash at the end is one too many
                assert_refused(reply)
            assert client.get("/v1/jobs", params={"cursor": name}).status_code in (200, 422)

        try_one()


def assert_refused(reply: httpx.Response) -> None:
    """A problem document of the 400s, without an echo of anything long."""
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert all(len(str(value)) <= 200 for value in reply.json().values())
