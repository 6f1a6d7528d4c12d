"""Bad input: names, other people's jobs, and servers that are away or refuse."""

from typing import Any

from pydantic import SecretStr

from jobs.job import job_id
from tests.bad_input.cases import GOOD, SEED_KEY, Case

#: Somebody else's job: it exists, and answers as one that never did.
THEIRS = f"/v1/jobs/{job_id('default', SEED_KEY)}"

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
    Case(
        "an origin that is none",
        403,
        "forbidden",
        "Origin",
        send={"json": {"prompts": GOOD}, "headers": {"Origin": "http://[x"}},
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

OTHERS = [
    Case(
        f"another tenant's job: {method} {what or 'itself'}",
        404,
        "not_found",
        "no such job",
        method,
        THEIRS + what,
        {"json": {"priority": 9}} if method == "PATCH" else {},
        {"tenant": "eve"},
    )
    for method, what in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/results"),
        ("GET", "/timing"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("PATCH", ""),
    )
] + [
    Case(
        "a key that another body had",
        409,
        "conflict",
        f"Idempotency-Key|{job_id('default', SEED_KEY)}|new key",
        send={"json": {"prompts": ["another"]}, "headers": {"Idempotency-Key": SEED_KEY}},
    ),
]


def added(
    title: str, says: str, *, status: int = 422, code: str = "invalid_input", **body: Any
) -> Case:
    """An extension of the job that is there, which has not ended."""
    return Case(title, status, code, says, path=f"{THEIRS}/extend", send={"json": body})


EXTENSIONS = [
    added("extension by nothing", "repeats|more repeats or of more rows"),
    added("extension of a job that runs", "has not ended", status=409, code="conflict", repeats=1),
    added("extension by rows and repeats", "repeats", prompts=GOOD, repeats=1),
    added("extension by two sources", "prompts|twice", prompts=GOOD, template={"template": "a"}),
    added("extension with a job's field", "seed", code="unknown_field", repeats=1, seed=1),
    added(
        "added steps",
        "prompts, row 2, steps|99 steps|--drop steps",
        prompts=[*GOOD, {"prompt": "b", "steps": 99}],
    ),
    added(
        "added model",
        "row 1|'model' cannot be set per row",
        prompts=[{"prompt": "b", "model": "tiny"}],
    ),
    added(
        "added column",
        "row 1|no column 'label'|--drop label",
        prompts=[{"prompt": "b", "label": 1}],
    ),
    added("added blank prompt", "row 1|blank", code="empty", prompts=[" "]),
    added(
        "added bad rows alone",
        "no prompt in it",
        code="empty",
        prompts=[" "],
        source={"bad_rows": "quarantine"},
    ),
    added(
        "added template's columns",
        "template|'choice_1'|--drop",
        template={"template": "a {b|c}"},
    ),
    added("added template that never ends", "template", template={"template": "a {b|c"}),
    added(
        "added from where nothing is read",
        "prompts_from|FEWSTEP_PROMPT_SOURCES",
        prompts_from={"uri": "s3://x/y.txt"},
    ),
    added(
        "added rows of an endless template", "count", prompts=["{a|b}"], expand={"mode": "sampled"}
    ),
    Case(
        "added bad line",
        422,
        "invalid_input",
        "rows.csv, line 3|sampler 'fast'",
        path=f"{THEIRS}/extend",
        send={"files": {"prompts": ("rows.csv", b"prompt,sampler\na,\nb,fast\n")}},
    ),
]
