"""Bad input is refused with a message that names row, field and remedy, and leaves no trace."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.api_servers import RunningApi, serving

GOOD = ["a red circle"]


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


def recipe(title: str, says: str, **fields: Any) -> Case:
    """A recipe that the catalog refuses."""
    return inline(title, "invalid_input", says, recipe=fields)


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


def row(title: str, says: str, **fields: Any) -> Case:
    """The second row of a JSON body is bad."""
    prompts = [*GOOD, {"prompt": "a blue star"} | fields]
    return inline(title, "invalid_input", f"prompts, row 2|{says}", prompts=prompts)


def chunks(total: int) -> Iterator[bytes]:
    """A body without a declared length."""
    yield b'{"prompts": ["'
    for _ in range(total // 65_536):
        yield b"a" * 65_536
    yield b'"]}'


# Words that a reply must hold are separated by "|".
FORM = [
    raw("empty body", 400, "bad_json", "body|not JSON", b""),
    raw("no JSON", 400, "bad_json", "body|character 1", b"prompts=1"),
    raw("bad UTF-8", 400, "bad_json", "byte 15|UTF-8", b'{"prompts": ["\xff"]}'),
    raw("trailing bytes", 400, "bad_json", "Extra data", b'{"prompts": ["a"]} x'),
    raw("deep nesting", 400, "bad_json", "nested", b"[" * 100_000),
    raw("5000 digits", 400, "bad_json", "number", b'{"job": {"seed": ' + b"9" * 5000 + b"}}"),
    raw("an array", 422, "invalid_input", "body|object", b'["a"]'),
    raw(
        "twin fields",
        422,
        "invalid_input",
        "'prompts' is given twice",
        b'{"prompts": ["a"], "prompts": ["b"]}',
    ),
    raw(
        "NaN", 422, "not_finite", "NaN", b'{"job": {"recipe": {"guidance": NaN}}, "prompts": ["a"]}'
    ),
    raw(
        "1e999",
        422,
        "not_finite",
        "job.recipe.guidance|finite",
        b'{"job": {"recipe": {"guidance": 1e999}}, "prompts": ["a"]}',
    ),
    raw(
        "1e999 in a column",
        422,
        "invalid_input",
        "prompts, row 1|score|finite",
        b'{"prompts": [{"prompt": "a", "score": 1e999}]}',
    ),
    raw(
        "400 digits in a column",
        422,
        "invalid_input",
        "score|64 bits",
        b'{"prompts": [{"prompt": "a", "score": ' + b"9" * 400 + b"}]}",
    ),
    raw(
        "lone surrogate",
        422,
        "invalid_input",
        "prompts, row 1|surrogate",
        b'{"prompts": ["\\ud800"]}',
    ),
    raw(
        "lone surrogate in the name",
        400,
        "bad_json",
        "job",
        b'{"job": {"name": "\\ud800"}, "prompts": ["a"]}',
    ),
    raw("NUL", 422, "invalid_input", "prompts, row 1|NUL", b'{"prompts": ["a\\u0000"]}'),
    raw(
        "gzip",
        415,
        "unsupported_media_type",
        "Content-Encoding",
        b"x" * 50,
        **{"Content-Encoding": "gzip"},
    ),
    raw(
        "another type",
        415,
        "unsupported_media_type",
        "Content-Type|application/json",
        b"{}",
        **{"Content-Type": "text/plain"},
    ),
    raw(
        "a huge body", 413, "too_large", "8000000 bytes|file", b'{"prompts": ["' + b"a" * 9_000_000
    ),
    raw("a huge body in chunks", 413, "too_large", "8000000 bytes|file", chunks(9_000_000)),
    raw(
        "no boundary", 400, "bad_form", "boundary", b"x", **{"Content-Type": "multipart/form-data"}
    ),
    raw(
        "a broken form",
        400,
        "bad_form",
        "body",
        b"nonsense",
        **{"Content-Type": "multipart/form-data; boundary=x"},
    ),
    Case(
        "unknown field of the body",
        422,
        "unknown_field",
        "'prompt'|prompts",
        send={"json": {"prompt": ["a"]}},
    ),
]

JOB = [
    inline("unknown field", "unknown_field", "job.stpes|spelling", stpes=4),
    inline("unknown field of the recipe", "unknown_field", "job.recipe.cfg", recipe={"cfg": 1}),
    inline("text for a number", "wrong_type", "job.repeats|integer", repeats="4"),
    inline("true for a number", "wrong_type", "job.repeats|integer", repeats=True),
    inline("a fraction of a step", "wrong_type", "job.recipe.steps", recipe={"steps": 4.0}),
    inline("seed of 64 bits", "out_of_range", "job.seed|4294967295", seed=2**64),
    inline("negative seed", "out_of_range", "job.seed|0", seed=-1),
    inline("zero repeats", "out_of_range", "job.repeats|1", repeats=0),
    inline("negative repeats", "out_of_range", "job.repeats|1", repeats=-3),
    inline("too many repeats", "out_of_range", "job.repeats|100000", repeats=10**9),
    inline("zero images a shard", "out_of_range", "job.shard_images|1", shard_images=0),
    inline("too many images a shard", "out_of_range", "job.shard_images|10000", shard_images=10**6),
    inline("priority 999", "out_of_range", "job.priority|9", priority=999),
    inline("quality 101", "out_of_range", "job.quality|100", quality=101),
    inline("unknown format", "not_allowed", "job.format|'png', 'jpeg' or 'webp'", format="gif"),
    inline("control character", "bad_text", "job.name", name="a\x1b[31m"),
    inline("long name", "out_of_range", "job.name|200", name="a" * 201),
    Case(
        "job is no object",
        422,
        "invalid_input",
        "job|object",
        send={"json": {"job": [1], "prompts": GOOD}},
    ),
]

RECIPE = [
    recipe("unknown model", "model|'sd99'|tiny", model="sd99"),
    recipe("unknown accelerator", "accelerator|'turbo'|lcm-tiny", accelerator="turbo"),
    recipe("another model's accelerator", "accelerator|it fits: sd15", accelerator="lcm-sd15"),
    recipe("unknown style", "style|'oil'|outline", styles=[{"name": "oil"}]),
    recipe("a style twice", "styles|twice", styles=[{"name": "outline"}] * 2),
    recipe("zero steps", "steps|choose 1 to 8", steps=0),
    recipe("10000 steps", "steps|choose 1 to 8", steps=10_000),
    recipe("the teacher's steps", "steps|choose 1 to 100", steps=101, accelerator="none"),
    recipe("negative guidance", "guidance|0 to 2", guidance=-5.0),
    recipe("strong guidance with LCM", "guidance|0 to 2", guidance=7.5),
    recipe("another sampler", "sampler|'lcm'", sampler="euler"),
    recipe("width not of 16", "width|multiple of 16|nearest is 64", width=63),
    recipe("width beyond", "width|nearest is 128", width=1_000_003),
    recipe("width of 400 digits", "width|nearest is 128", width=10**400),
    recipe("zero height", "height|nearest is 32", height=0),
    recipe("negative height", "height|nearest is 32", height=-64),
    inline(
        "a style's path",
        "bad_text",
        "job.recipe.styles.0.name",
        recipe={"styles": [{"name": "../../etc/passwd"}]},
    ),
    inline("a model's address", "bad_text", "job.recipe.model", recipe={"model": "http://a/b"}),
]

ROWS = [
    inline("no prompts", "invalid_input", "prompts|at least one", prompts=[]),
    inline("prompts missing", "invalid_input", "prompts|list", prompts=None),
    inline("only blanks", "invalid_input", "prompts, row 1|blank", prompts=[" ", "\t"]),
    inline("a number", "invalid_input", "prompts, row 2|text", prompts=["a", 5]),
    inline("a list", "invalid_input", "prompts, row 1|text", prompts=[["a"]]),
    inline("2 M prompts", "too_large", "file", status=413, prompts=["a"] * 1_999_999),
    inline("10001 prompts", "too_large", "10000|file", status=413, prompts=["a"] * 10_001),
    inline("no prompt in it", "invalid_input", "row 1|missing|text", prompts=[{"text": "a"}]),
    inline("long prompt", "invalid_input", "row 1|8001|8000", prompts=["a" * 8_001]),
    row("blank prompt", "blank|remove", prompt="  "),
    row("prompt is a number", "prompt is not text", prompt=5),
    row("row seed of 33 bits", "seed|4294967295", seed=2**32),
    row("negative row seed", "seed|4294967295", seed=-1),
    row("row seed is text", "seed", seed="7"),
    row("negative prompt is a number", "negative_prompt is not text", negative_prompt=0),
    row("steps per row", "'steps' cannot be set per row|whole job", steps=2),
    row("column name", "column name|letters", **{"a b": 1}),
    row("65 columns", "64 columns", **{f"c{number}": 1 for number in range(65)}),
]

FILES = [
    file("empty file", "rows.jsonl|no prompt", b""),
    file("only blank lines", "rows.txt|no prompt", b"\n\n", filename="rows.txt"),
    file("blank line", "rows.txt, line 2|blank|remove", b"a\n \nb\n", filename="rows.txt"),
    file("not UTF-8", "rows.txt, line 2|byte 2|UTF-8", b"a\nb\xff\n", filename="rows.txt"),
    file("NUL in a line", "rows.txt, line 1|NUL", b"a\0\n", filename="rows.txt"),
    file(
        "broken line", "rows.jsonl, line 2|not JSON|one JSON object", b'{"prompt": "a"}\n{"prom\n'
    ),
    file("NaN in a line", "line 1|NaN", b'{"prompt": "a", "score": NaN}\n'),
    file("twin fields in a line", "line 1|twice", b'{"prompt": "a", "prompt": "b"}\n'),
    file("deep line", "line 1|nested", b"[" * 100_000 + b"\n"),
    file("a line is a list", "line 1|object", b'["a"]\n'),
    file("surrogate in a line", "line 1|surrogate", b'{"prompt": "\\ud800"}\n'),
    file("long line", "line 1|1000000 bytes", b"a" * 1_000_001, status=413, code="too_large"),
    file(
        "late bad line",
        "line 2501|seed",
        b'{"prompt": "a"}\n' * 2_500 + b'{"prompt": "a", "seed": -1}',
    ),
    file("unknown kind", "prompts|.txt|.jsonl", b"a", filename="rows.csv"),
    file("path as a name", "no prompt", b"", filename="../../etc/passwd.txt"),
    Case("no file", 422, "invalid_input", "prompts|missing", send={"files": {"job": (None, "{}")}}),
    Case(
        "job is a file",
        400,
        "bad_form",
        "Too many files",
        send={"files": {"job": ("job.json", "{}"), "prompts": ("a.txt", b"a")}},
    ),
    Case(
        "job part is broken",
        400,
        "bad_json",
        "job",
        send={"files": {"job": (None, "{"), "prompts": ("a.txt", b"a")}},
    ),
]

NAMES = [
    Case(
        f"key {key[:9]!r}",
        422,
        "invalid_input",
        "Idempotency-Key|128",
        send={"json": {"prompts": GOOD}, "headers": {"Idempotency-Key": key}},
    )
    for key in ("", "a" * 129, "a b", "../../x", "{a}", "a|b", "a:b")
] + [
    Case("unknown job", 404, "not_found", "no such job", "GET", f"/v1/jobs/{'a' * 26}"),
    Case(
        "cancel of an unknown job",
        404,
        "not_found",
        "no such job",
        path=f"/v1/jobs/{'a' * 26}/cancel",
    ),
    Case(
        "events of an unknown job",
        404,
        "not_found",
        "no such job",
        "GET",
        f"/v1/jobs/{'a' * 26}/events",
    ),
    Case("job id with braces", 422, "bad_text", "job_id", "GET", "/v1/jobs/%7Ba%7D"),
    Case("job id with a line", 422, "bad_text", "job_id", "GET", f"/v1/jobs/{'a' * 26}%0A"),
    Case("job id upwards", 404, "not_found", "", "GET", "/v1/jobs/%2e%2e%2f%2e%2e"),
    Case(
        "priority of an unknown job",
        404,
        "not_found",
        "no such job",
        "PATCH",
        f"/v1/jobs/{'a' * 26}",
        {"json": {"priority": 1}},
    ),
    Case(
        "priority beyond",
        422,
        "out_of_range",
        "priority|9",
        "PATCH",
        f"/v1/jobs/{'a' * 26}",
        {"json": {"priority": 99}},
    ),
    Case(
        "event id",
        422,
        "invalid_input",
        "Last-Event-ID",
        "GET",
        f"/v1/jobs/{'a' * 26}/events",
        {"headers": {"Last-Event-ID": "x"}},
    ),
    Case("limit beyond", 422, "out_of_range", "limit|500", "GET", "/v1/jobs?limit=9999"),
    Case("cursor", 422, "bad_text", "cursor", "GET", "/v1/jobs?cursor=x"),
    Case("unknown state", 422, "not_allowed", "state|waiting", "GET", "/v1/jobs?state=lost"),
    Case("no such route", 404, "not_found", "/docs", "GET", "/v1/nothing"),
    Case("wrong method", 405, "method_not_allowed", "", "DELETE", "/v1/jobs"),
    Case(
        "another host's name",
        403,
        "forbidden",
        "Host",
        send={"json": {"prompts": GOOD}, "headers": {"Host": "evil.example"}},
    ),
    Case(
        "another site's page",
        403,
        "forbidden",
        "Origin",
        send={"json": {"prompts": GOOD}, "headers": {"Origin": "https://evil.example"}},
    ),
]

SERVERS = [
    Case(
        "store away",
        503,
        "unreachable",
        "127.0.0.1:1",
        send={"json": {"prompts": GOOD}},
        settings={"s3_endpoint": "http://127.0.0.1:1"},
    ),
    Case(
        "Redis away",
        503,
        "unreachable",
        "Redis does not answer|FEWSTEP_REDIS_URL",
        send={"json": {"prompts": GOOD}},
        settings={"redis_url": SecretStr("redis://:secret@127.0.0.1:1/0")},
    ),
    Case(
        "bucket missing",
        503,
        "bad_configuration",
        "never-made",
        send={"json": {"prompts": GOOD}},
        settings={"s3_bucket": "never-made"},
    ),
    Case(
        "wrong keys",
        503,
        "bad_configuration",
        "FEWSTEP_S3_SECRET_KEY",
        send={"json": {"prompts": GOOD}},
        settings={"s3_endpoint": "rclone", "s3_secret_key": SecretStr("wrongsecretkey001")},
    ),
    Case(
        "both away, at readyz",
        503,
        "unreachable",
        "redis at 127.0.0.1:1; store at",
        "GET",
        "/readyz",
        settings={
            "redis_url": SecretStr("redis://127.0.0.1:1/0"),
            "s3_endpoint": "http://127.0.0.1:1",
        },
    ),
]

CASES = [*FORM, *JOB, *RECIPE, *ROWS, *FILES, *NAMES, *SERVERS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_bad_input(case: Case, api: RunningApi, request: pytest.FixtureRequest) -> None:
    """One row of the table: the reply says what it must, and nothing was written."""
    if case.settings:
        changed = dict(case.settings)
        if changed.get("s3_endpoint") == "rclone":
            changed["s3_endpoint"] = request.getfixturevalue("rclone_url")
        with serving(api.settings.model_copy(update=changed)) as url:
            reply = ask(url, case)
    else:
        reply = ask(api.url, case)

    problem = reply.json()
    assert (reply.status_code, problem["code"]) == (case.status, case.code), problem
    assert reply.headers["content-type"] == "application/problem+json"
    said = " ".join(str(problem.get(part, "")) for part in ("where", "detail", "remedy"))
    for words in case.says.split("|"):
        assert words in said
    assert all(len(str(value)) <= 200 for value in problem.values())
    assert "secret" not in said
    assert api.written() == set()


def ask(url: str, case: Case) -> httpx.Response:
    """The reply to a case's request."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        return client.request(case.method, case.path, **case.send)
