"""Templates, and the headers that every page leaves with."""

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from jobs.api.services import Services
from jobs.page.wording import FILTERS

STATIC = Path(__file__).with_name("static")
#: Nothing inline, nothing from elsewhere, no frame around it.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # `no-referrer` would make the browser send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@cache
def templates() -> Environment:
    """The environment: every value is escaped, an unknown one is an error."""
    found = Environment(
        loader=PackageLoader("jobs.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters.update(FILTERS)
    return found


def fragment(template: str, **values: Any) -> str:
    """A part of a page; half of a surrogate pair, which no encoding can send, becomes a ?."""
    text: str = templates().get_template(template).render(values)
    return text.encode("utf-8", "replace").decode("utf-8")


def page(
    request: Request, template: str, services: Services | None, status: int = 200, **values: Any
) -> Response:
    """A whole page; `services`: of whoever looks, None where nobody is signed in."""
    known = {
        "path": request.url.path,
        "tenant": services.tenant if services else "",
        "keyed": services is not None and services.settings.keys == "required",
        "admin": services is not None and "admin" in services.visitor.scopes,
        "may_submit": services is not None
        and not {"submit", "admin"}.isdisjoint(services.visitor.scopes),
    }
    return HTMLResponse(fragment(template, **known | values), status, headers=HEADERS)


class Static(StaticFiles):
    """The page's own files; those with a version in their name never change."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, *rest: Any) -> Response:
        """The file with how long it holds."""
        reply = super().file_response(full_path, stat_result, scope, *rest)
        versioned = any(letter.isdigit() for letter in Path(full_path).stem)
        reply.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if versioned else "no-cache"
        )
        reply.headers["X-Content-Type-Options"] = "nosniff"
        return reply
