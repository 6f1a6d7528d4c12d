"""Errors as RFC 9457 problem documents: code, detail, where, remedy; never an echo of the input."""

import json
import logging
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from jobs.errors import FewstepError, NoCapacity, Unreachable

log = logging.getLogger(__name__)

#: No text of a reply is longer than this, so that nothing large or hostile is echoed.
ECHO_MAX = 200
#: Routes whose errors are in OpenAI's form.
OPENAI_PATHS = ("/v1/files", "/v1/batches", "/v1/images")
_KEPT = ("retry-after", "www-authenticate")

#: What a client that was refused for lack of room should wait, in seconds.
RETRY_AFTER_S = 5

#: Finer codes for what pydantic finds; anything else is `invalid_input`.
_CODES = {
    "finite_number": "not_finite",
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
    "json_invalid": "bad_json",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "literal_error": "not_allowed",
    "enum": "not_allowed",
    "too_long": "out_of_range",
    "string_too_long": "out_of_range",
    "string_pattern_mismatch": "bad_text",
    "string_unicode": "bad_text",
}


class Problem(BaseModel):
    """The body of every reply that is not a success."""

    type: str = Field(examples=["urn:fewstep:invalid_input"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    code: str = Field(examples=["invalid_input"])
    detail: str = Field(examples=["12 steps are outside what this recipe allows"])
    where: str | None = Field(default=None, examples=["steps"])
    remedy: str | None = Field(default=None, examples=["choose 1 to 8"])


class Refused(FewstepError):
    """A request that is refused before its content matters: its form, its type, its method."""

    def __init__(
        self, status: int, code: str, message: str, *, where: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message, where=where or None, remedy=remedy or None)
        self.http_status, self.code = status, code


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of the app leave as a problem document."""
    app.add_exception_handler(FewstepError, _on_fewstep_error)
    app.add_exception_handler(RequestValidationError, _on_request_validation)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_hang_up)
    app.add_exception_handler(Exception, _on_bug)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem replies of a route, for its OpenAPI entry."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def raise_invalid(error: ValidationError, root: str) -> NoReturn:
    """Raise the first thing pydantic found in a body's part as a problem of ours."""
    code, field, message = _first(error.errors(include_url=False, include_input=False))
    status = 400 if code == "bad_json" else 422
    where = ".".join(part for part in (root, field) if part)
    raise Refused(status, code, message, where=where, remedy=_remedy(code)) from error


def problem(
    status: int,
    code: str,
    detail: str,
    where: str | None = None,
    remedy: str | None = None,
    retry_after_s: int | None = None,
) -> Response:
    """A problem document as a reply."""
    body = {
        "type": f"urn:fewstep:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": _clipped(detail),
        "where": _clipped(where) if where else None,
        "remedy": _clipped(remedy) if remedy else None,
    }
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_S if retry_after_s is None else retry_after_s)
    # ASCII, because half a surrogate pair in a message cannot be written as UTF-8.
    return Response(
        json.dumps({name: value for name, value in body.items() if value is not None}),
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )


def _reply(
    request: Request,
    status: int,
    code: str,
    detail: str,
    where: str | None = None,
    remedy: str | None = None,
    retry_after_s: int | None = None,
) -> Response:
    """The error in the form that the route's clients read."""
    reply = problem(status, code, detail, where, remedy, retry_after_s)
    if not request.url.path.startswith(OPENAI_PATHS):
        return reply
    kind = "server_error" if status >= 500 else "invalid_request_error"
    message = f"{_clipped(detail)} ({_clipped(remedy)})" if remedy else _clipped(detail)
    error = {
        "message": message,
        "type": "rate_limit_error" if status == 429 else kind,
        "param": _clipped(where) if where else None,
        "code": code,
    }
    headers = {name: reply.headers[name] for name in _KEPT if name in reply.headers}
    body = json.dumps({"error": error})
    return Response(body, status, headers=headers, media_type="application/json")


async def _on_fewstep_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FewstepError)
    if error.http_status >= 500 and not isinstance(error, Unreachable | NoCapacity):
        log.error(
            "request_failed method=%s path=%s error=%s", request.method, request.url.path, error
        )
    wait = getattr(error, "retry_after_s", None)
    return _reply(
        request, error.http_status, error.code, error.message, error.where, error.remedy, wait
    )


async def _on_request_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    code, field, message = _first(error.errors())
    return _reply(request, 422, code, message, field, _remedy(code))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    remedy = "the routes are listed under /docs" if error.status_code == 404 else None
    reply = _reply(request, error.status_code, code, str(error.detail), request.url.path, remedy)
    reply.headers.update(error.headers or {})
    return reply


async def _on_hang_up(request: Request, error: Exception) -> Response:
    # Nobody reads this; without it, an upload that was cut would be logged as a fault of ours.
    return problem(400, "cut_off", "the request ended before its body did")


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("request_broke method=%s path=%s", request.method, request.url.path, exc_info=error)
    return _reply(request, 500, "internal", "something went wrong in the API; its log says what")


def _first(errors: Any) -> tuple[str, str, str]:
    """Code, field and message of the first thing that pydantic found."""
    first = errors[0]
    code = _CODES.get(first["type"], "invalid_input")
    if first["type"].endswith("_type"):
        code = "wrong_type"
    parts = [str(part) for part in first["loc"] if part not in ("query", "path", "header")]
    message = str(first["msg"])
    if first["type"] == "string_pattern_mismatch":
        message = f"this may not stand here; its form is {first['ctx']['pattern']}"
    return code, ".".join(parts), message


def _remedy(code: str) -> str:
    return {
        "unknown_field": "check its spelling against /docs",
        "bad_json": "send one JSON object in UTF-8",
        "not_finite": "NaN and infinity are no settings",
    }.get(code, "")


def _clipped(text: str) -> str:
    return text if len(text) <= ECHO_MAX else f"{text[: ECHO_MAX - 1]}…"
