"""An API that asks for keys, and keys for it, made as the operator makes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from jobs.key_store import KeyStore
from jobs.keys import Quota, Scope, make_key
from tests.api_servers import RunningApi, serving

ALL: tuple[Scope, ...] = ("submit", "read")


@dataclass(frozen=True)
class KeyedApi:
    """The address of an API that asks for keys, and the store in which they lie."""

    url: str
    api: RunningApi
    keys: KeyStore

    def make(self, tenant: str, scopes: tuple[Scope, ...] = ALL, **settings: int) -> str:
        """A key's text."""
        key, text = make_key(tenant, scopes, now_ms=1_700_000_000_000, **settings)
        self.keys.add(key)
        return text

    @contextmanager
    def visit(self, text: str) -> Iterator[httpx.Client]:
        """A plain HTTP client that sends this key ("": none)."""
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        with httpx.Client(
            base_url=self.url, headers=headers, trust_env=False, timeout=20
        ) as client:
            yield client

    def grant(self, tenant: str, **fields: float) -> None:
        """Set what a tenant may use."""
        self.keys.set_quota(tenant, Quota.model_validate(fields))


@pytest.fixture
def keyed(api: RunningApi) -> Iterator[KeyedApi]:
    """An API with keys, on the session's Redis and store, both empty. Make keys before visits:
    the API reads them at most once a second."""
    settings = api.settings.model_copy(update={"keys": "required"})
    with serving(settings) as url:
        yield KeyedApi(url, api, KeyStore(api.store, settings.s3_prefix))
