"""The OpenAPI document against the server: made-up input of every kind, to every operation."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

from jobs.api.app import create_app
from jobs.settings import Settings
from tests.api_calls import BODY, submit
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi, serving

#: Bounded, so that the whole file takes less than a minute on two cores.
EXAMPLES = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
#: Nobody renders here, so this one rightly says 503 when it has waited long enough.
WAITS = "/v1/images/generations"

#: Operations without any input: there is nothing to get wrong.
BARE = {"/healthz", "/readyz"}
OPERATIONS = [
    pytest.param(method, path, mode, id=f"{method} {path} {mode.value}")
    for path, methods in create_app(Settings()).openapi()["paths"].items()
    for method in methods
    for mode in GenerationMode
    if mode == GenerationMode.POSITIVE or path not in BARE
]


@pytest.fixture(scope="module")
def document(_session_api: RunningApi) -> Iterator[Any]:
    """The OpenAPI document of a server that waits for no picture."""
    changed = _session_api.settings.model_copy(update={"images_wait_s": 0.01})
    with serving(changed) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.fixture(scope="module")
def done_job(_session_api: RunningApi) -> str:
    """A job with pictures, which takes no more orders."""
    # Whatever another file's last test left would be rendered first.
    _session_api.redis.flushall()
    with httpx.Client(base_url=_session_api.url, trust_env=False) as http:
        job_id = submit(http, BODY)
    render_shards(_session_api, job_id)
    finish_dataset(_session_api, job_id)
    return job_id


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS)
def test_no_operation_breaks_or_surprises(
    document: Any, done_job: str, method: str, path: str, mode: GenerationMode
) -> None:
    """No fault of ours, and no status that the document does not name."""

    @EXAMPLES
    @given(case=document[path][method].as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        _check(case)
        if "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = done_job
            _check(case)

    run()


def _check(case: schemathesis.Case) -> None:
    reply = case.call()
    if case.operation.path == WAITS and reply.status_code == 503:
        return
    case.validate_response(reply, checks=[not_a_server_error, status_code_conformance])
