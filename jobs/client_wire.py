"""The client's wire: sends a request, again where that is safe, and reads what comes back."""

import json
import random
import time
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from jobs.client_upload import Upload
from jobs.errors import (
    BadConfiguration,
    Conflict,
    FewstepError,
    Forbidden,
    InvalidInput,
    NoAccess,
    NoCapacity,
    NotFound,
    QuotaExceeded,
    TooLarge,
    TooManyRequests,
    Unreachable,
)

_BY_CODE: dict[str, type[FewstepError]] = {
    kind.code: kind
    for kind in (
        InvalidInput,
        TooLarge,
        BadConfiguration,
        Unreachable,
        NotFound,
        Conflict,
        NoCapacity,
        NoAccess,
        Forbidden,
        QuotaExceeded,
        TooManyRequests,
    )
}
# Where the code is a finer one than an error class has (`out_of_range`), the status decides.
_BY_STATUS: dict[int, type[FewstepError]] = {
    400: InvalidInput,
    401: NoAccess,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    415: InvalidInput,
    422: InvalidInput,
    429: QuotaExceeded,
    502: Unreachable,
    503: Unreachable,
    504: Unreachable,
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Sending a large prompt file and having it checked may take this long.
SUBMIT_TIMEOUT_S = 1_800.0
#: Waits before a call is repeated, in seconds; a refused connection is repeated once.
RETRY_WAITS_S = (0.2, 0.6, 1.8)
#: A stream that is silent for longer than this (keep-alives come every 15 s) is opened again.
STREAM_SILENCE_S = 45.0


class Wire:
    """One API's address and the connections to it. Every call may be repeated by itself."""

    def __init__(
        self, url: str, key: str, timeout_s: float, transport: httpx.BaseTransport | None
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            transport=transport,
            # A proxy from the environment must not stand between us and this very machine.
            trust_env=urlsplit(self.url).hostname not in LOOPBACK,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self, method: str, path: str, *, upload: Upload | None = None, **request: Any
    ) -> dict[str, Any]:
        """The JSON object that a request is answered with; raises what a problem reply means.

        A request whose reply was lost is sent again, because every verb may run twice.
        """
        last: httpx.TransportError | None = None
        for wait in (0.0, *RETRY_WAITS_S):
            pause(wait)
            try:
                if upload is not None:
                    request |= upload.fields(SUBMIT_TIMEOUT_S)
                return object_of(self._http.request(method, path, **request))
            except httpx.TransportError as error:
                if isinstance(last, httpx.ConnectError):
                    raise self.unreachable(error) from error
                last = error
        raise self.unreachable(last) from last

    def stream(self, path: str, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Server-sent events until the server ends or cuts the stream (httpx.TransportError)."""
        timeout = httpx.Timeout(5.0, read=STREAM_SILENCE_S)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as reply:
            if reply.status_code != 200:
                reply.read()
                raise_problem(reply)
            yield from events_of(reply.iter_lines())

    def unreachable(self, error: httpx.TransportError | None) -> Unreachable:
        """What to raise where nothing answers."""
        return Unreachable(
            f"the API does not answer: {str(error or 'the stream was cut')[:200]}",
            where=self.url,
            remedy="start the local stack with `fewstep up`, or set FEWSTEP_API_URL",
        )


def pause(seconds: float) -> None:
    """Wait about so long, so that many clients do not come back together."""
    time.sleep(seconds * random.uniform(0.8, 1.2))


def object_of(reply: httpx.Response) -> dict[str, Any]:
    """The JSON object of a good reply; raises the error that any other one means."""
    if not reply.is_success:
        raise_problem(reply)
    try:
        value = reply.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _stranger(reply)
    return value


def raise_problem(reply: httpx.Response) -> NoReturn:
    """Raise what a reply's problem document says, as the class that the server raised."""
    try:
        problem = reply.json()
    except ValueError as error:
        raise _stranger(reply) from error
    if not isinstance(problem, dict) or "code" not in problem:
        raise _stranger(reply)
    kind = _BY_CODE.get(str(problem["code"])) or _BY_STATUS.get(reply.status_code, FewstepError)
    raise kind(
        str(problem.get("detail", "the API gave no reason")),
        where=problem.get("where"),
        remedy=problem.get("remedy"),
    )


def events_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events as `{"id", "type", "data"}`; comments (keep-alives) are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in fields:
                value = f"{fields['data']}\n{value}"
            fields[name] = value
            continue
        if "data" in fields:
            yield {
                "id": fields.get("id", ""),
                "type": fields.get("event", "message"),
                "data": json.loads(fields["data"]),
            }
        fields = {}


def _stranger(reply: httpx.Response) -> FewstepError:
    return Unreachable(
        f"whatever answers there (status {reply.status_code}) is not the API of fewstep",
        where=str(reply.url.copy_with(path="/", query=None)),
        remedy="is FEWSTEP_API_URL the API's address?",
    )
