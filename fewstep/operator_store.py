"""Keys and quotas as the operator reaches them: in the store, past the API."""

from collections.abc import Iterator
from contextlib import contextmanager

from fewstep.configuration import current_settings
from jobs.key_store import KeyStore
from jobs.store import Store


@contextmanager
def key_store() -> Iterator[KeyStore]:
    """The keys of the local stack that is up, or of the store that the variables name."""
    settings = current_settings()
    store = Store.connect(settings)
    try:
        yield KeyStore(store, settings.s3_prefix)
    finally:
        store.close()
