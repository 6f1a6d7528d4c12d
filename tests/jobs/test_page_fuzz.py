"""The page against made-up input of every kind: no fault of ours, no page without its guards."""

from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from jobs.page.mount import PARTS
from jobs.page.rendering import POLICY
from tests.api_calls import BODY, submit
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi

EXAMPLES = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def document() -> dict[str, Any]:
    """An OpenAPI document of the page's routes, which the API's own does not name."""
    app = FastAPI()
    for part in PARTS:
        app.include_router(part.router)
    return app.openapi()


DOCUMENT = document()
#: Operations without any input of an address: there is nothing to get wrong, or it is a form's.
BARE = {("post", "/sign-out"), ("post", "/new"), ("post", "/new/preview"), ("get", "/cluster")}
OPERATIONS = [
    (method, path)
    for path, some in DOCUMENT["paths"].items()
    for method in some
    if (method, path) not in BARE
]


@pytest.fixture(scope="module")
def done_job(_session_api: RunningApi) -> tuple[str, str]:
    """The API's address, and a job with pictures, which takes no more orders."""
    # What earlier files left waiting would be claimed before it.
    _session_api.redis.flushall()
    with httpx.Client(base_url=_session_api.url, trust_env=False) as http:
        job_id = submit(http, BODY)
    render_shards(_session_api, job_id)
    finish_dataset(_session_api, job_id)
    return _session_api.url, job_id


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_page_breaks(done_job: tuple[str, str], method: str, path: str) -> None:
    url, job_id = done_job
    schema = schemathesis.openapi.from_dict(DOCUMENT)

    for mode in GenerationMode:

        @EXAMPLES
        @given(case=schema[path][method].as_strategy(generation_mode=mode))
        def run(case: schemathesis.Case) -> None:
            case.headers["Origin"] = url
            _check(case, url)
            if "job_id" in (case.path_parameters or {}):
                case.path_parameters["job_id"] = job_id
                _check(case, url)

        run()


def _check(case: schemathesis.Case, url: str) -> None:
    reply = case.call(base_url=url)
    assert reply.status_code < 500, f"{case.formatted_path}: {reply.text[:300]}"
    kind = "".join(reply.headers.get("content-type", ""))
    if kind.startswith("text/html"):
        assert "".join(reply.headers["content-security-policy"]) == POLICY
