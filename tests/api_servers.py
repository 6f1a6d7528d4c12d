"""A running API for tests: real HTTP, on a real Redis and a real S3 server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from pydantic import SecretStr

from jobs.api.app import create_app
from jobs.redis_client import control_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.s3_servers import settings_for
from tests.servers import RedisServer, wait_until


@dataclass(frozen=True)
class RunningApi:
    """An API's address, and the servers behind it as a test may look at them."""

    url: str
    settings: Settings
    store: Store
    queue: ShardQueue
    redis: Any

    def written(self) -> set[str]:
        """Every key of Redis, and of the store."""
        objects = {f"s3:{found.key}" for found in self.store.list("")}
        return objects | {f"redis:{key}" for key in self.redis.scan_iter()}


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[str]:
    """An API with these settings on that port (0: a free one); its address."""
    config = uvicorn.Config(
        create_app(settings),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the API")
        bound = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{bound}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def _session_api(redis_server: RedisServer, moto_url: str) -> Iterator[RunningApi]:
    settings = settings_for(moto_url).model_copy(update={"redis_url": SecretStr(redis_server.url)})
    store = Store.connect(settings, create_bucket=True)
    client = control_client(redis_server.url)
    with serving(settings) as url, client:
        yield RunningApi(url, settings, store, ShardQueue(client), client)
    store.close()


@pytest.fixture
def api(_session_api: RunningApi) -> RunningApi:
    """The session's API, on an empty Redis and an empty bucket."""
    _session_api.redis.flushall()
    _session_api.store.delete(found.key for found in _session_api.store.list(""))
    return _session_api


@pytest.fixture
def http(api: RunningApi) -> Iterator[httpx.Client]:
    """A plain HTTP client of the API, with no retries and no types."""
    with httpx.Client(base_url=api.url, trust_env=False, timeout=20) as client:
        yield client
