"""A case of bad input: a request, and what the API must answer. The tables are made of these."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

GOOD = ["a red circle"]
#: A job that is there before every case: its key, and what it was submitted with.
SEED_KEY = "the-job-that-was-there"


@dataclass(frozen=True)
class Case:
    """A request, and what must come back: status, code, and words that the reply must hold."""

    title: str
    status: int
    code: str
    says: str
    method: str = "POST"
    path: str = "/v1/jobs"
    send: dict[str, Any] = field(default_factory=dict)
    #: Settings of an API of its own, where the servers are what is bad.
    settings: dict[str, Any] = field(default_factory=dict)


def inline(
    title: str, code: str, says: str, *, status: int = 422, prompts: Any = GOOD, **job: Any
) -> Case:
    """Prompts and job fields in a JSON body."""
    return Case(title, status, code, says, send={"json": {"job": job, "prompts": prompts}})


def recipe(title: str, says: str, *, code: str = "invalid_input", **fields: Any) -> Case:
    """A recipe that the catalog refuses."""
    return inline(title, code, says, recipe=fields)


def raw(title: str, status: int, code: str, says: str, body: Any, **headers: str) -> Case:
    """Bytes as the body of what claims to be JSON."""
    sent = {"Content-Type": "application/json"} | headers
    return Case(title, status, code, says, send={"content": body, "headers": sent})


def file(
    title: str,
    says: str,
    content: bytes,
    *,
    filename: str = "rows.jsonl",
    status: int = 422,
    code: str = "invalid_input",
) -> Case:
    """A prompt file in a multipart form."""
    return Case(title, status, code, says, send={"files": {"prompts": (filename, content)}})


def row(title: str, says: str, *, code: str = "invalid_input", **fields: Any) -> Case:
    """The second row of a JSON body is bad."""
    prompts = [*GOOD, {"prompt": "a blue star"} | fields]
    return inline(title, code, f"prompts, row 2|{says}", prompts=prompts)


def chunks(total: int) -> Iterator[bytes]:
    """A body without a declared length."""
    yield b'{"prompts": ["'
    for _ in range(total // 65_536):
        yield b"a" * 65_536
    yield b'"]}'
