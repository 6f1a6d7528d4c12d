"""Signing in with an API key, and out again."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from jobs.api.house import UsesHouse
from jobs.api.visitor import key_of
from jobs.errors import NoAccess
from jobs.page.rendering import HEADERS, page
from jobs.page.route import PageRoute
from jobs.page.visitor import COOKIE, own_page
from jobs.sessions import SESSION_S

router = APIRouter(route_class=PageRoute, tags=["page"])

Back = Annotated[str, Query(max_length=200)]


@router.get("/sign-in")
def form(request: Request, house: UsesHouse, back: Back = "/") -> Response:
    """The form; without keys there is nothing to sign in to."""
    if house.settings.keys == "off":
        return RedirectResponse("/", 303, headers=HEADERS)
    return page(request, "sign_in.html", None, back=own_path(back), wrong="")


@router.post("/sign-in", dependencies=[Depends(own_page)])
def sign_in(
    request: Request,
    house: UsesHouse,
    key: Annotated[str, Form(max_length=200)] = "",
    back: Annotated[str, Form(max_length=200)] = "/",
) -> Response:
    """Check the key, and let the browser keep a session of it."""
    try:
        found = key_of(house, key.strip())
    except NoAccess:
        wrong = "This key opens nothing here. It may have been revoked, or a letter is missing."
        return page(request, "sign_in.html", None, 401, back=own_path(back), wrong=wrong)
    reply = RedirectResponse(own_path(back), 303, headers=HEADERS)
    reply.set_cookie(
        COOKIE,
        house.sessions.session(found),
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        # A gateway that has TLS speaks to us without.
        secure="https" in (request.url.scheme, urlsplit(house.settings.api_url).scheme),
    )
    return reply


@router.post("/sign-out", dependencies=[Depends(own_page)])
def sign_out() -> Response:
    """Forget the session."""
    reply = RedirectResponse("/sign-in", 303, headers=HEADERS)
    reply.delete_cookie(COOKIE, httponly=True, samesite="strict")
    # Browsers do so behind TLS and on this machine; elsewhere they ask again before they show it.
    reply.headers["Clear-Site-Data"] = '"cache"'
    return reply


def own_path(back: str) -> str:
    """`back` if it is a path of this page; a link must not lead elsewhere after the sign-in."""
    own = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
    return back if own else "/"
