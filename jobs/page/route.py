"""Routes of the page: what goes wrong in one is shown as a page, with what to do about it."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute

from jobs.errors import FewstepError, InvalidInput, NoAccess, NotFound
from jobs.page.rendering import HEADERS, page

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route whose errors are pages; who is not signed in is led to the sign-in."""

    def get_route_handler(self) -> Handler:
        """The handler with its errors caught."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except NoAccess:
                return to_sign_in(request)
            except RequestValidationError as error:
                return error_page(request, _of_validation(error))
            except FewstepError as error:
                return error_page(request, error)

        return handle


def to_sign_in(request: Request) -> Response:
    """Lead to the sign-in, and from there back to what was asked for."""
    back = request.url.path if request.method == "GET" else "/"
    target = f"/sign-in?back={quote(back)}"
    if request.headers.get("hx-request"):
        # htmx follows a redirect by itself and would put the form into the page's middle.
        return Response(status_code=401, headers=HEADERS | {"HX-Redirect": target})
    return RedirectResponse(target, 303, headers=HEADERS)


def error_page(request: Request, error: FewstepError) -> Response:
    """The error as a page, with its status and when to come again."""
    reply = page(request, "error.html", None, error.http_status, error=error)
    wait = getattr(error, "retry_after_s", None)
    if error.http_status in (429, 503):
        reply.headers["Retry-After"] = str(wait or 5)
    return reply


def _of_validation(error: RequestValidationError) -> FewstepError:
    """An address that cannot be right is of nothing that there is; a field says what it is."""
    first = error.errors()[0]
    place, *rest = (str(part) for part in first["loc"])
    if place == "path":
        return NotFound("there is nothing of this name", where="the address")
    return InvalidInput(str(first["msg"]), where=".".join(rest))
