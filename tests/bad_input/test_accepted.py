"""Odd input that is right all the same, and how it is read."""

import httpx
import pytest

from tests.api_servers import RunningApi

LONG = " ".join(["red"] * 200)


def submit(api: RunningApi, **send: object) -> dict[str, object]:
    """Submit; the answer, which must be an acceptance."""
    with httpx.Client(base_url=api.url, trust_env=False, timeout=20) as http:
        reply = http.post("/v1/jobs", **send)  # type: ignore[arg-type]
    assert reply.status_code == 202, reply.text
    return dict(reply.json())


def test_a_byte_order_mark_is_no_part_of_the_text(api: RunningApi) -> None:
    body = b'\xef\xbb\xbf{"prompts": ["a"]}'
    assert submit(api, content=body, headers={"Content-Type": "application/json"})["images"] == 1
    submit(api, files={"prompts": ("a.txt", b"\xef\xbb\xbfa red circle\n")})
    pages = [api.store.get(one.key) for one in api.store.list("") if one.key.endswith(".jsonl")]
    assert len(pages) == 2
    assert not any(b"\xef\xbb\xbf" in page or b"\\ufeff" in page for page in pages)


@pytest.mark.parametrize("name", ["rows.txt", "rows.jsonl"])
def test_line_ends_may_be_mixed(api: RunningApi, name: str) -> None:
    lines = [b"a", b"b", b"c"] if name == "rows.txt" else [b'{"prompt": "a"}'] * 3
    content = lines[0] + b"\r\n" + lines[1] + b"\n" + lines[2]
    assert submit(api, files={"prompts": (name, content)})["images"] == 3


def test_a_prompt_beyond_the_encoder_is_accepted_with_a_warning(api: RunningApi) -> None:
    reply = submit(api, json={"prompts": [LONG]})
    assert "77 tokens" in str(reply["warnings"])


def test_a_path_as_a_files_name_names_nothing(api: RunningApi) -> None:
    submit(api, files={"prompts": ("../../etc/passwd.txt", b"a red circle\n")})
    assert not any("passwd" in found.key or ".." in found.key for found in api.store.list(""))
