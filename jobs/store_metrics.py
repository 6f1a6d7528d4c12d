"""How the store answers this process: every request that its S3 clients send, counted and timed."""

import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

#: Of the whole process, as the clients are: the API's page shows it.
STORE_METRICS = CollectorRegistry()
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUESTS = Counter(
    "fewstep_store_requests",
    "Requests of this process to the store, tries included: ok, absent, refused (4xx), error.",
    ("operation", "result"),
    registry=STORE_METRICS,
)
_SECONDS = Histogram(
    "fewstep_store_request_seconds",
    "Until the store has answered a request of this process.",
    ("operation",),
    buckets=_BUCKETS,
    registry=STORE_METRICS,
)
_BEGUN = "fewstep_begun"


def measure(client: Any) -> None:
    """Count and time whatever this boto3 client asks from now on."""
    events = client.meta.events
    events.register("before-call.s3", _begin)
    events.register("after-call.s3", _end)
    events.register("after-call-error.s3", _fail)


def _begin(context: dict[str, Any], **_: Any) -> None:
    context[_BEGUN] = time.perf_counter()


def _end(model: Any, http_response: Any, context: Mapping[str, Any], **_: Any) -> None:
    _note(model.name, _result(http_response.status_code), context)


def _fail(event_name: str, context: Mapping[str, Any], **_: Any) -> None:
    _note(event_name.rpartition(".")[2], "error", context)


def _note(operation: str, result: str, context: Mapping[str, Any]) -> None:
    _REQUESTS.labels(operation, result).inc()
    begun = context.get(_BEGUN)
    if begun is not None:
        _SECONDS.labels(operation).observe(time.perf_counter() - begun)


def _result(status: int) -> str:
    if status < 400:
        return "ok"
    if status == 404:
        return "absent"
    return "refused" if status < 500 else "error"
