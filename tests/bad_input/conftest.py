"""An API with one job in it, and what Redis and the store hold: bad input must not change it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.api_servers import RunningApi, serving
from tests.bad_input.cases import GOOD, SEED_KEY
from tests.leaks import lasting
from tests.servers import keys_and_digests

#: The address of an API whose settings differ in these.
UrlFor = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="module")
def seeded(_session_api: RunningApi) -> RunningApi:
    """The session's API, with one job that was accepted and waits."""
    _session_api.redis.flushall()
    _session_api.store.delete(found.key for found in _session_api.store.list(""))
    accepted = httpx.post(
        f"{_session_api.url}/v1/jobs",
        json={"prompts": GOOD},
        headers={"Idempotency-Key": SEED_KEY},
        timeout=20,
        trust_env=False,
    )
    assert accepted.status_code == 202, accepted.text
    return _session_api


@pytest.fixture(scope="module")
def url_for(seeded: RunningApi, rclone_url: str) -> Iterator[UrlFor]:
    """Addresses of APIs by what differs in their settings; each is started once."""
    known: dict[str, str] = {}
    with ExitStack() as running:

        def url(changed: dict[str, Any]) -> str:
            if not changed:
                return seeded.url
            name = repr(changed)
            if name not in known:
                if changed.get("s3_endpoint") == "rclone":
                    changed = changed | {"s3_endpoint": rclone_url}
                settings = seeded.settings.model_copy(update=changed)
                with lasting():
                    known[name] = running.enter_context(serving(settings))
            return known[name]

        yield url


def all_there_is(api: RunningApi) -> dict[str, str]:
    """Every key of Redis with a digest of its value, and every object with its etag."""
    objects = {f"s3:{found.key}": found.etag for found in api.store.list("")}
    return objects | keys_and_digests(api.redis)


@pytest.fixture
def untouched(seeded: RunningApi) -> Iterator[None]:
    """Fails the test if anything was written, changed or deleted."""
    before = all_there_is(seeded)
    yield
    assert all_there_is(seeded) == before
