"""Sign-ins of the page: a sealed note of a key's id that a browser keeps in a cookie.

The key itself is not in it, and a key that is revoked ends its sessions at once.
"""

import hashlib
import hmac
import re
import secrets
import time

from jobs.keys import ApiKey
from jobs.store import Store

#: How long one sign-in lasts, in seconds.
SESSION_S = 7 * 86_400
_FORM = re.compile(r"([a-z2-7]{12})\.(\d{1,12})\.([0-9a-f]{64})")


class SessionSigner:
    """Seals and opens sessions with a secret that all API processes share through the store."""

    def __init__(self, store: Store, prefix: str) -> None:
        key = f"{prefix}/_secrets/sessions"
        if store.head(key) is None:
            store.put(key, secrets.token_bytes(32), if_absent=True)
        self._secret = store.get(key)

    def session(self, key: ApiKey, seconds: int = SESSION_S) -> str:
        """The text of a session for this key."""
        until = int(time.time()) + seconds
        return f"{key.id}.{until}.{self._seal(key, until)}"

    def opens(self, text: str, key: ApiKey) -> bool:
        """Whether the text is a session of this very key, and has not run out."""
        match = _FORM.fullmatch(text)
        if match is None or match[1] != key.id:
            return False
        until = int(match[2])
        return hmac.compare_digest(self._seal(key, until), match[3]) and time.time() <= until

    def _seal(self, key: ApiKey, until: int) -> str:
        # The digest too: a key made anew under an old id opens nothing for its old sessions.
        text = f"{key.id}/{key.sha256}/{until}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def session_key_id(text: str) -> str | None:
    """The id of the key that a session is of; None where the text is no session."""
    match = _FORM.fullmatch(text)
    return match[1] if match else None
