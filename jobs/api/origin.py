"""A guard for an API without keys: no web page may reach it through somebody's browser."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.api.problems import problem

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class OriginGuard:
    """Refuses requests to a name that is not ours, and those that another site's page makes.

    Without it, a page could point its own name at 127.0.0.1 and read the answers, or post a form.
    """

    def __init__(self, app: ASGIApp, api_url: str) -> None:
        self._app = app
        self._names = LOOPBACK | {_name(api_url)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if _name(f"//{host}") not in self._names:
            await _refusal("Host", "the API does not go by this name", "see FEWSTEP_API_URL")(
                scope, receive, send
            )
        elif origin is not None and _netloc(origin) != host:
            remedy = "call it from a program, or from a page of its own"
            await _refusal("Origin", "another site's page may not use this API", remedy)(
                scope, receive, send
            )
        else:
            await self._app(scope, receive, send)


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _refusal(where: str, detail: str, remedy: str) -> ASGIApp:
    return problem(403, "forbidden", detail, where, remedy)
