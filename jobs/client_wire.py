"""The client's wire: sends a request, again where that is safe, and reads what comes back."""

import json
import random
import time
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from jobs.client_calls import Answer, Call, Pages
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
#: Waits before a call is repeated, in seconds; a refused connection is repeated once.
RETRY_WAITS_S = (0.2, 0.6, 1.8)
#: A stream that is silent for longer than this (keep-alives come every 15 s) is opened again.
STREAM_SILENCE_S = 45.0
STREAM_TIMEOUT = httpx.Timeout(5.0, read=STREAM_SILENCE_S)
#: A key that sends too fast waits by itself if that is no longer than this.
RATE_WAIT_MAX_S = 5.0


class Wire:
    """One API's address and the connections to it. Every call may be repeated by itself."""

    def __init__(
        self, url: str, key: str, timeout_s: float, transport: httpx.BaseTransport | None
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(transport=transport, **settings_of(self.url, key, timeout_s))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, call: Call[Answer]) -> Answer:
        """The answer to a call; raises what a problem reply means."""
        return call.read(self.reply_to(call))

    def reply_to(self, call: Call[Any]) -> dict[str, Any]:
        """The JSON object that a call is answered with; see `send`."""
        return object_of(self.send(call))

    def send(self, call: Call[Any]) -> httpx.Response:
        """The reply to a call, whatever it says.

        A request whose reply was lost is sent again, because every verb may run twice; so is one
        that came too fast.
        """
        tries = Tries(self.url, call.twice)
        while True:
            try:
                reply = self._http.request(call.method, call.path, **call.arguments())
            except httpx.TransportError as error:
                time.sleep(tries.wait_after(error))
                continue
            wait = tries.wait_for(reply)
            if wait is None:
                return reply
            time.sleep(wait)

    def pages(self, pages: Pages[Answer]) -> Iterator[Answer]:
        """Everything in all pages, each asked for when it is needed."""
        more: Pages[Answer] | None = pages
        while more is not None:
            reply = self.reply_to(more.call)
            yield from more.call.read(reply)
            more = more.after(reply)

    def stream(self, path: str, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Server-sent events until the server ends or cuts the stream (httpx.TransportError)."""
        with self._http.stream("GET", path, headers=headers, timeout=STREAM_TIMEOUT) as reply:
            if reply.status_code != 200:
                reply.read()
                raise_problem(reply)
            reader = EventReader()
            for line in reply.iter_lines():
                event = reader.take(line)
                if event is not None:
                    yield event


class Tries:
    """How often one call was tried, and how long to wait before the next time."""

    def __init__(self, url: str, twice: bool = True) -> None:
        self._url, self._twice = url, twice
        self._waits = iter(RETRY_WAITS_S)
        self._last: httpx.TransportError | None = None

    def wait_after(self, error: httpx.TransportError) -> float:
        """Seconds to wait after a reply was lost; raises Unreachable where it is enough."""
        refused = isinstance(error, httpx.ConnectError)
        refused_twice = isinstance(self._last, httpx.ConnectError)
        if not self._twice and not refused:
            # It may have been done: once more would do it twice.
            raise unreachable(self._url, error) from error
        self._last = error
        wait = None if refused_twice else next(self._waits, None)
        if wait is None:
            raise unreachable(self._url, error) from error
        return scattered(wait)

    def wait_for(self, reply: httpx.Response) -> float | None:
        """Seconds to wait before sending again what came too fast; None: this is the reply."""
        if reply.status_code != 429 or b"too_many_requests" not in reply.content:
            return None
        wait = float(reply.headers.get("retry-after", RATE_WAIT_MAX_S + 1))
        return wait if wait <= RATE_WAIT_MAX_S and next(self._waits, None) is not None else None


def settings_of(url: str, key: str, timeout_s: float) -> dict[str, Any]:
    """How connections to an API are made."""
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
        "trust_env": trusts_environment(url),
    }


def trusts_environment(url: str) -> bool:
    """Whether a proxy from the environment may stand between: never on this very machine."""
    return urlsplit(url).hostname not in LOOPBACK


def unreachable(url: str, error: httpx.TransportError | None) -> Unreachable:
    """What to raise where nothing answers."""
    return Unreachable(
        f"the API does not answer: {str(error or 'the stream was cut')[:200]}",
        where=url,
        remedy="start the local stack with `fewstep up`, or set FEWSTEP_API_URL",
    )


def scattered(seconds: float) -> float:
    """About so long, so that many clients do not come back together."""
    return seconds * random.uniform(0.8, 1.2)


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


def bytes_of(reply: httpx.Response) -> bytes:
    """The body of a good reply; raises the error that any other one means."""
    if not reply.is_success:
        raise_problem(reply)
    return reply.content


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


class EventReader:
    """Puts server-sent events together line by line; comments (keep-alives) are left out."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def take(self, line: str) -> dict[str, Any] | None:
        """The event that the line completes, as `{"id", "type", "data"}`."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in self._fields:
                value = f"{self._fields['data']}\n{value}"
            self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        return {
            "id": fields.get("id", ""),
            "type": fields.get("event", "message"),
            "data": json.loads(fields["data"]),
        }


def _stranger(reply: httpx.Response) -> FewstepError:
    return Unreachable(
        f"whatever answers there (status {reply.status_code}) is not the API of fewstep",
        where=str(reply.url.copy_with(path="/", query=None)),
        remedy="is FEWSTEP_API_URL the API's address?",
    )
