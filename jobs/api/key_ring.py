"""Keys and quotas as the API knows them: a copy of the store's, seconds old."""

import logging
import threading
import time
from collections.abc import Callable
from copy import copy

from jobs.errors import BadConfiguration, FewstepError, Unreachable
from jobs.key_store import KeyStore
from jobs.keys import ApiKey, Quota

log = logging.getLogger(__name__)

#: A key that was revoked opens nothing after so long, and a new quota holds.
FRESH_S = 5.0
#: An unknown key may be a new one: the store is asked at most so often for its sake.
ASK_S = 1.0


class KeyRing:
    """Every key and quota, read anew when they are `FRESH_S` old.

    While the store does not answer, what was read before goes on to hold: one request at a time
    waits for another try, the rest do not. An object that is no key opens nothing, and is logged.
    """

    def __init__(
        self, store: Callable[[], KeyStore], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect, self._clock = store, clock
        self._lock = threading.Lock()
        self._store: KeyStore | None = None
        self._read_at: float | None = None
        self._tried_at: float | None = None
        #: Why the last try read nothing; None: it did.
        self._fault: FewstepError | None = None
        self._keys: dict[str, ApiKey] = {}
        self._quotas: dict[str, Quota] = {}

    def key(self, key_id: str) -> ApiKey | None:
        """A key by its id, revoked ones too.

        Raises Unreachable or BadConfiguration where none were ever read.
        """
        self._refresh(FRESH_S)
        if key_id not in self._keys:
            self._refresh(ASK_S)
        return self._keys.get(key_id)

    def quota(self, tenant: str) -> Quota:
        """What a tenant may use."""
        self._refresh(FRESH_S)
        return self._quotas.get(tenant, Quota())

    def _refresh(self, age_s: float) -> None:
        # Behind a store that answers everybody waits, so that no revoked key slips through.
        if self._due(age_s) and self._lock.acquire(blocking=self._fault is None):
            try:
                # Somebody may have read while this one waited.
                if self._due(age_s):
                    self._read()
            finally:
                self._lock.release()
        if self._read_at is None and self._fault is not None:
            raise copy(self._fault)

    def _due(self, age_s: float) -> bool:
        if self._tried_at is None:
            return True
        least = ASK_S if self._read_at is None else age_s
        return self._clock() - self._tried_at >= least

    def _read(self) -> None:
        begin = self._clock()
        try:
            self._store = self._store or self._connect()
            # One object that is no key must not keep a revoked one open.
            keys, quotas = self._store.keys(damaged=True), self._store.quotas(damaged=True)
            self._keys, self._quotas = keys, quotas
        except (Unreachable, BadConfiguration) as error:
            # After the wait, which may be longer than the time until the next try.
            self._tried_at, self._fault = self._clock(), error
            if self._read_at is not None:
                age_s = self._tried_at - self._read_at
                log.warning("keys_old seconds=%.0f error=%s", age_s, error)
            return
        self._read_at = self._tried_at = begin
        self._fault = None
