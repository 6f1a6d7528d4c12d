"""API keys and what a tenant may use: values that are made, shown once, and compared."""

import base64
import hashlib
import hmac
import re
import secrets
from typing import Literal

from pydantic import Field

from jobs.recipe import Frozen

Scope = Literal["submit", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("submit", "read", "admin")

_ID_BYTES, SECRET_BYTES = 7, 32
_KEY = re.compile(r"fewstep_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
_TENANT = r"^[a-z0-9][a-z0-9-]{0,39}$"


class ApiKey(Frozen):
    """A key as it is written down: everything but the secret. Times are ms since 1970 (UTC)."""

    id: str = Field(pattern=r"^[a-z2-7]{12}$")
    tenant: str = Field(pattern=_TENANT)
    name: str = Field(default="", max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    scopes: tuple[Scope, ...] = Field(min_length=1, strict=False)
    #: Of the secret. No slow hash: 32 random bytes cannot be guessed.
    sha256: str
    requests_a_minute: int = Field(default=600, ge=1, le=1_000_000)
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def opens_with(self, secret: str) -> bool:
        """Whether `secret` is this key's; takes the same time for every wrong one."""
        return hmac.compare_digest(_digest(secret), self.sha256)

    def lives(self, now_ms: int) -> bool:
        """Whether it was neither revoked nor has run out."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)

    def allows(self, scope: Scope) -> bool:
        """Whether it has the scope; `admin` has all."""
        return scope in self.scopes or "admin" in self.scopes


class Quota(Frozen):
    """What one tenant may use, and its share where several wait."""

    #: Jobs that have not ended.
    open_jobs: int = Field(default=1_000, ge=0, le=100_000)
    #: Images accepted from one midnight (UTC) to the next; None: any number.
    images_a_day: int | None = Field(default=None, ge=0, le=10**13)
    #: Shards in flight at once; 0: any number.
    shards_in_flight: int = Field(default=0, ge=0, le=1_000_000)
    #: Device-seconds are shared out in proportion to it.
    weight: float = Field(default=1.0, ge=1e-3, le=1e3)


def make_key(
    tenant: str,
    scopes: tuple[Scope, ...],
    *,
    now_ms: int,
    name: str = "",
    expires_ms: int | None = None,
    requests_a_minute: int = 600,
) -> tuple[ApiKey, str]:
    """A new key and its text, `fewstep_<id>_<secret>`, which nobody can read again.

    Raises pydantic's ValidationError for a tenant or name that may not be.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(
        id=base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()[:12],
        tenant=tenant,
        name=name,
        scopes=scopes,
        sha256=_digest(secret),
        requests_a_minute=requests_a_minute,
        created_ms=now_ms,
        expires_ms=expires_ms,
    )
    return key, f"fewstep_{key.id}_{secret}"


def split_key(text: str) -> tuple[str, str] | None:
    """Id and secret of a key's text; None where it is no key of ours."""
    match = _KEY.fullmatch(text)
    return (match[1], match[2]) if match else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
