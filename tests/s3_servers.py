"""Two real S3 servers for tests: one honours conditional writes, the other ignores them."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from fewstep.local_s3 import start_s3
from jobs.s3_client import Patience
from jobs.settings import Settings
from jobs.store import Store
from tests.servers import free_port

ACCESS, SECRET = "testaccesskey0001", "testsecretkey00001"
#: Servers by what they do with `If-None-Match: *`.
STRICT, WEAK = "moto", "rclone"


def settings_for(endpoint: str, bucket: str = "") -> Settings:
    """Settings for a server, with a bucket of its own."""
    return Settings(
        s3_endpoint=endpoint,
        s3_bucket=bucket or f"test-{uuid.uuid4().hex[:12]}",
        s3_access_key=SecretStr(ACCESS),
        s3_secret_key=SecretStr(SECRET),
    )


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of a server that honours conditional writes."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def rclone_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that ignores conditions and keeps files in a folder."""
    folder: Path = tmp_path_factory.mktemp("rclone")
    port = free_port()
    with start_s3(folder / "objects", port, ACCESS, SECRET, folder / "s3.log") as process:
        yield f"http://127.0.0.1:{port}"
        process.kill()


@pytest.fixture(scope="session", params=[STRICT, WEAK])
def s3_settings(request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings for each server in turn; the bucket is not made yet."""
    settings = settings_for(request.getfixturevalue(f"{request.param}_url"))
    yield settings
    if connected := _connected.pop(settings.s3_bucket, None):
        connected.close()


#: Bucket -> its connection: making one takes a second, so tests share it.
_connected: dict[str, Store] = {}


@pytest.fixture
def store(s3_settings: Settings) -> Iterator[Store]:
    """An empty store on each server in turn; it gives up at once."""
    bucket = s3_settings.s3_bucket
    if bucket not in _connected:
        _connected[bucket] = Store.connect(
            s3_settings, create_bucket=True, patience=Patience(seconds=0)
        )
    made = _connected[bucket]
    yield made
    try:
        assert_no_leftovers(made)
    finally:
        made.delete([found.key for found in made.list("")])


def assert_no_leftovers(store: Store) -> None:
    """No upload in parts is open, and no job that ended has shards that were only staged.

    Those of a job with a later round may be of that round, which is at work.
    """
    assert store.unfinished_uploads("") == ()
    keys = {found.key for found in store.list("")}
    for key in keys:
        place, _, name = key.partition("/staged/")
        job = place.replace("/_scratch/", "/")
        ended = f"{job}/_SUCCESS" in keys and f"{job}/rounds/0001.json" not in keys
        assert not (name and ended), f"{key} stayed after its job was done"
