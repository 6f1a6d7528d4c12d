"""Keys and quotas as the API knows them: a copy of the store's, seconds old."""

import logging
import threading
import time
from collections.abc import Callable

from jobs.errors import Unreachable
from jobs.key_store import KeyStore
from jobs.keys import ApiKey, Quota

log = logging.getLogger(__name__)

#: A key that was revoked opens nothing after so long, and a new quota holds.
FRESH_S = 5.0
#: An unknown key may be a new one: the store is asked at most so often for its sake.
ASK_S = 1.0


class KeyRing:
    """Every key and quota, read anew when they are `FRESH_S` old.

    While the store does not answer, what was read before goes on to hold.
    """

    def __init__(
        self, store: Callable[[], KeyStore], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect, self._clock = store, clock
        self._lock = threading.Lock()
        self._store: KeyStore | None = None
        self._read_at: float | None = None
        self._keys: dict[str, ApiKey] = {}
        self._quotas: dict[str, Quota] = {}

    def key(self, key_id: str) -> ApiKey | None:
        """A key by its id, revoked ones too. Raises Unreachable where none were ever read."""
        with self._lock:
            self._refresh(FRESH_S)
            if key_id not in self._keys:
                self._refresh(ASK_S)
            return self._keys.get(key_id)

    def quota(self, tenant: str) -> Quota:
        """What a tenant may use."""
        with self._lock:
            self._refresh(FRESH_S)
            return self._quotas.get(tenant, Quota())

    def _refresh(self, age_s: float) -> None:
        now = self._clock()
        if self._read_at is not None and now - self._read_at < age_s:
            return
        try:
            self._store = self._store or self._connect()
            self._keys, self._quotas = self._store.keys(), self._store.quotas()
        except Unreachable as error:
            if self._read_at is None:
                raise
            log.warning("keys are %.0f s old: %s", now - self._read_at, error)
            return
        self._read_at = now
