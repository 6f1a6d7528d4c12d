"""A Redis and an S3 server of a run's own, as the one-machine stack starts them; no torch."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import SecretStr

from fewstep.local_ray import free_ports
from fewstep.local_redis import start_redis
from fewstep.local_s3 import start_s3
from jobs.settings import Settings
from jobs.store import Store

SECRET = "benchmarksecret0001"


@contextmanager
def running_redis() -> Iterator[int]:
    """A Redis with its append-only file; its port. Gone, with its data, afterwards."""
    with tempfile.TemporaryDirectory(prefix="fewstep-bench-") as name:
        folder = Path(name)
        [port] = free_ports(1)
        process = start_redis(folder / "queue", port, SECRET, folder / "redis.log")
        try:
            yield port
        finally:
            process.kill()
            process.wait()


def url_of(port: int) -> str:
    """The address of that Redis, with its password."""
    return f"redis://:{SECRET}@127.0.0.1:{port}/0"


@contextmanager
def running_servers(threads: int = 1) -> Iterator[tuple[Settings, Store]]:
    """Both servers on free ports, and the settings that lead to them."""
    with ExitStack() as ends:
        redis_port = ends.enter_context(running_redis())
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="fewstep-bench-")))
        [s3_port] = free_ports(1)
        server = start_s3(folder / "objects", s3_port, SECRET, SECRET, folder / "s3.log")
        ends.callback(server.wait)
        ends.callback(server.kill)
        settings = Settings(
            # Nothing of an earlier run or another program's is found, and nothing is left.
            home=folder / "home",
            cache=folder / "cache",
            redis_url=SecretStr(url_of(redis_port)),
            s3_endpoint=f"http://127.0.0.1:{s3_port}",
            s3_access_key=SecretStr(SECRET),
            s3_secret_key=SecretStr(SECRET),
            threads=threads,
        )
        store = Store.connect(settings, create_bucket=True)
        ends.callback(store.close)
        yield settings, store
