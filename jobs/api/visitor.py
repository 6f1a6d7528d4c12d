"""Who asks: the tenant and the scopes of a request, from its key."""

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from jobs.api.house import House
from jobs.errors import Forbidden, NoAccess
from jobs.keys import SCOPES, ApiKey, Quota, Scope, split_key

BEARER = HTTPBearer(
    auto_error=False,
    bearerFormat="fewstep_<id>_<secret>",
    description="Made by `fewstep keys create`. Not needed while the API runs without keys.",
)
_SHOWING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Visitor:
    """A tenant and what its request may do; `quota` is None while no keys are asked for."""

    tenant: str
    scopes: tuple[Scope, ...]
    quota: Quota | None = None
    #: The key that the request bore; "": none was asked for.
    key_id: str = ""

    def require(self, scope: Scope) -> None:
        """Raises Forbidden unless the request may do this."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(
                f"this key has not the scope {scope!r}",
                where="Authorization",
                remedy=f"it has: {', '.join(self.scopes)}",
            )


def visitor_of(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
) -> Visitor:
    """Who asks. Showing takes the scope `read`, everything else `submit`: no route can forget.

    Raises NoAccess, Forbidden or TooManyRequests.
    """
    house: House = request.app.state.house
    if house.settings.keys == "off":
        return Visitor(house.settings.tenant, SCOPES)
    key = key_of(house, credentials.credentials if credentials else "")
    house.allowance.take_request(key.id, key.requests_a_minute)
    visitor = Visitor(key.tenant, key.scopes, house.keys.quota(key.tenant), key.id)
    visitor.require("read" if request.method in _SHOWING else "submit")
    return visitor


def key_of(house: House, text: str) -> ApiKey:
    """The living key of this text; raises NoAccess."""
    parts = split_key(text)
    key = house.keys.key(parts[0]) if parts else None
    # One answer for all, so that nobody learns which ids exist.
    if parts is None or key is None or not key.opens_with(parts[1]) or not key.lives(_now_ms()):
        raise _no_key()
    return key


def check_lives(house: House, visitor: Visitor) -> None:
    """For what goes on after its request was let in: raises NoAccess once the key has ended."""
    key = house.keys.key(visitor.key_id) if visitor.key_id else None
    if visitor.key_id and (key is None or not key.lives(_now_ms())):
        raise _no_key()


def _no_key() -> NoAccess:
    return NoAccess(
        "the request bears no key that opens anything here",
        where="Authorization",
        remedy="send `Authorization: Bearer fewstep_...`; `fewstep keys create` makes one",
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


UsesVisitor = Annotated[Visitor, Depends(visitor_of)]


def admin_only(visitor: UsesVisitor) -> None:
    """For routes that show all tenants' work at once."""
    visitor.require("admin")


ADMIN = Depends(admin_only)
