"""Links to single pictures that open without a key for a while, like a presigned link to S3."""

import hashlib
import hmac
import secrets
import time
from urllib.parse import urlencode

from jobs.errors import Forbidden
from jobs.store import Store

#: How long a link opens its picture, in seconds.
LINK_S = 3_600


class LinkSigner:
    """Signs and checks links with a secret that all API processes share through the store."""

    def __init__(self, store: Store, prefix: str) -> None:
        key = f"{prefix}/_secrets/links"
        if store.head(key) is None:
            store.put(key, secrets.token_bytes(32), if_absent=True)
        self._secret = store.get(key)

    def link(self, tenant: str, job_id: str, image: int, seconds: int = LINK_S) -> str:
        """The path and query that show a picture for so long."""
        until = int(time.time()) + seconds
        query = urlencode(
            {"of": tenant, "until": until, "seal": self._seal(tenant, job_id, image, until)}
        )
        return f"/v1/jobs/{job_id}/items/{image}/picture?{query}"

    def check(self, tenant: str, job_id: str, image: int, until: int, seal: str) -> None:
        """Raises Forbidden for a link that was changed or has run out."""
        good = self._seal(tenant, job_id, image, until)
        if not hmac.compare_digest(good.encode(), seal.encode()) or time.time() > until:
            raise Forbidden(
                "the link has run out, or was changed",
                where="seal",
                remedy="ask for the items again: each has a fresh link",
            )

    def _seal(self, tenant: str, job_id: str, image: int, until: int) -> str:
        text = f"{tenant}/{job_id}/{image}/{until}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()
