"""The servers that tests stand on; a test starts only those whose fixtures it names."""

import os
import shutil
import tempfile

import pytest

pytest_plugins = (
    "tests.servers",
    "tests.engines",
    "tests.s3_servers",
    "tests.api_servers",
    "tests.api_keys",
    "tests.small_bases",
)

_CACHE = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """A node's cache of engines for this run alone: tests fuse with the code that is here."""
    config.stash[_CACHE] = os.environ["FEWSTEP_CACHE"] = tempfile.mkdtemp(prefix="fewstep-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    shutil.rmtree(config.stash[_CACHE], ignore_errors=True)
