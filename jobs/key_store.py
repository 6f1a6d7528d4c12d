"""Keys and quotas in the store: one small object each, so that they outlive Redis."""

import logging
from typing import TypeVar

from pydantic import ValidationError

from jobs.errors import BadConfiguration, InvalidInput, NotFound
from jobs.keys import ApiKey, Quota
from jobs.layout import segment
from jobs.recipe import Frozen
from jobs.store import Store

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=Frozen)


class KeyStore:
    """Reads and writes `<prefix>/_keys/<id>.json` and `<prefix>/_tenants/<tenant>.json`."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._keys, self._quotas = f"{prefix}/_keys/", f"{prefix}/_tenants/"
        #: Name of an object -> its etag and what it holds (None: nothing that reads), as last read.
        self._seen: dict[str, tuple[str, Frozen | None]] = {}

    def add(self, key: ApiKey) -> None:
        """Write a key down; over an older state of the same key."""
        self._put(f"{self._keys}{key.id}.json", key)

    def keys(self, *, damaged: bool = False) -> dict[str, ApiKey]:
        """Every key by its id, revoked ones too. Reads only what has changed since the last time.

        Raises BadConfiguration naming an object that is no key; with `damaged` it is logged, and
        left out.
        """
        return self._all(self._keys, ApiKey, damaged)

    def revoke(self, key_id: str, now_ms: int) -> ApiKey:
        """Let a key open nothing any more; may be repeated. Raises NotFound."""
        found = self.keys().get(key_id)
        if found is None:
            raise NotFound("there is no such key", where=key_id, remedy="see `fewstep keys list`")
        if found.revoked_ms is None:
            found = found.model_copy(update={"revoked_ms": now_ms})
            self.add(found)
        return found

    def set_quota(self, tenant: str, quota: Quota) -> None:
        """Write a tenant's quota down; raises InvalidInput for what is no tenant's name."""
        self._put(f"{self._quotas}{segment(tenant, 'tenant')}.json", quota)

    def quota(self, tenant: str) -> Quota | None:
        """A tenant's quota, None where none was set. Raises BadConfiguration if it is damaged."""
        try:
            return self._read(f"{self._quotas}{tenant}.json", Quota)
        except NotFound:
            return None

    def quotas(self, *, damaged: bool = False) -> dict[str, Quota]:
        """Every quota that was set, by tenant; who has none gets the defaults of `Quota`.

        Raises BadConfiguration, or leaves out, as `keys` does.
        """
        return self._all(self._quotas, Quota, damaged)

    def _put(self, key: str, record: Frozen) -> None:
        data = record.model_dump_json(indent=1).encode()
        self._store.put(key, data, content_type="application/json")

    def _all(self, folder: str, kind: type[Record], damaged: bool) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for one in self._store.list(folder):
            name = one.key.removeprefix(folder).removesuffix(".json")
            etag, record = self._seen.get(one.key, ("", None))
            if etag != one.etag or not (isinstance(record, kind) or (damaged and record is None)):
                record = self._read_or_skip(one.key, kind, damaged)
                self._seen[one.key] = (one.etag, record)
            if isinstance(record, kind):
                found[name] = record
        return found

    def _read_or_skip(self, key: str, kind: type[Record], damaged: bool) -> Record | None:
        try:
            return self._read(key, kind)
        except BadConfiguration as error:
            if not damaged:
                raise
            log.error("left_out error=%s", error)
            return None

    def _read(self, key: str, kind: type[Record]) -> Record:
        try:
            return kind.model_validate_json(self._store.get(key))
        except ValidationError as error:
            raise BadConfiguration(
                f"this does not read as what it is: {error.errors()[0]['msg']}",
                where=key,
                remedy="it was changed by hand, or by another version: delete it",
            ) from error


def checked_quota(**fields: int | float | None) -> Quota:
    """A quota of these fields; raises InvalidInput naming the first that is wrong."""
    try:
        return Quota.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(first["msg"], where=str(first["loc"][0])) from error
