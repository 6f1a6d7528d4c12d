"""Who looks at the page: the tenant of a session's key, and that it is its own page that posts."""

import time
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from jobs.api.house import House, UsesHouse
from jobs.api.services import Services
from jobs.api.visitor import Visitor
from jobs.errors import Forbidden, NoAccess
from jobs.keys import SCOPES, ApiKey
from jobs.sessions import session_key_id

COOKIE = "fewstep_session"


def signed_in(request: Request, house: House) -> ApiKey:
    """The key of the request's session; raises NoAccess where there is none that lives."""
    text = request.cookies.get(COOKIE, "")
    key_id = session_key_id(text)
    key = house.keys.key(key_id) if key_id else None
    now_ms = time.time_ns() // 1_000_000
    if key is None or not key.lives(now_ms) or not house.sessions.opens(text, key):
        raise NoAccess("nobody is signed in", where="/", remedy="sign in with a key")
    return key


def _visitor(request: Request, house: House, *, counted: bool) -> Visitor:
    if house.settings.keys == "off":
        return Visitor(house.settings.tenant, SCOPES)
    key = signed_in(request, house)
    if counted:
        house.allowance.take_request(key.id, key.requests_a_minute)
    return Visitor(key.tenant, key.scopes, house.keys.quota(key.tenant), key.id)


def look(request: Request, house: UsesHouse) -> Services:
    """Services for whoever looks; raises NoAccess, Forbidden or TooManyRequests."""
    visitor = _visitor(request, house, counted=True)
    visitor.require("read")
    return Services(house, visitor)


def look_at_picture(request: Request, house: UsesHouse) -> Services:
    """As `look`, not counted as a request: one page shows a hundred pictures."""
    visitor = _visitor(request, house, counted=False)
    visitor.require("read")
    return Services(house, visitor)


def own_page(request: Request) -> None:
    """Raises Forbidden for a form that another site's page sends (CSRF).

    Beside the cookie's `SameSite=Strict`, which not every browser keeps to.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    host = request.headers.get("host", "")
    # Of browsers, only old ones and those on plain HTTP leave the first header out.
    own = site == "same-origin" if site else _host_of(origin) == host
    if not own:
        raise Forbidden(
            "this form was not sent from this page", where="Origin", remedy="open the page anew"
        )


def change(
    request: Request, house: UsesHouse, _own: Annotated[None, Depends(own_page)]
) -> Services:
    """Services for whoever changes something; raises as `look` does."""
    visitor = _visitor(request, house, counted=True)
    visitor.require("submit")
    return Services(house, visitor)


def _host_of(origin: str | None) -> str | None:
    try:
        return urlsplit(origin).netloc if origin else None
    except ValueError:
        return None


Looks = Annotated[Services, Depends(look)]
LooksAtPictures = Annotated[Services, Depends(look_at_picture)]
Changes = Annotated[Services, Depends(change)]
