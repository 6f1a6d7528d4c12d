"""What the tests of the front door share: a clean environment, and stacks that cannot leak."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewstep.local import Stack
from fewstep.stack_state import STATE_FILE
from tests.s3_servers import moto_url, rclone_url
from tests.servers import redis_server, redis_url

__all__ = ["moto_url", "rclone_url", "redis_server", "redis_url"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`FEWSTEP_HOME` of a test, all else unset; whatever it starts is ended with it."""
    for name in list(os.environ):
        if name.startswith("FEWSTEP_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("FEWSTEP_HOME", str(folder))
    # Private stacks make their folders here, so that they are found below.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield folder
    for path in tmp_path.rglob(STATE_FILE):
        Stack.attach(path.parent).stop(grace_s=0.5)
