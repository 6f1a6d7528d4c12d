"""The page's small forms are small: what is longer is refused before a byte of it is read."""

import re

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.page.rendering import HEADERS

#: Bytes of a form of a few fields.
LARGEST = 16_384
#: Forms are read before anybody asks who sends them, so here nobody is known yet.
_SMALL = re.compile(r"/(sign-in|sign-out|jobs/[^/]+/course/[a-z]+)")


class SmallForms:
    """Refuses a longer body, and one that does not tell its length: the server holds it to that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on whatever is none of these forms, or is small."""
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and _SMALL.fullmatch(scope["path"])
        ):
            given = dict(scope["headers"])
            length = given.get(
                b"content-length", b"0" if b"transfer-encoding" not in given else b""
            )
            if not (length.isdigit() and len(length) < 10 and int(length) <= LARGEST):
                told = f"This form has at most {LARGEST} bytes.\n"
                await PlainTextResponse(told, 413, headers=HEADERS)(scope, receive, send)
                return
        await self._app(scope, receive, send)
