"""Bad input: names, other people's jobs, and servers that are away or refuse."""

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
