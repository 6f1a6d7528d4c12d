"""The servers that tests stand on; a test starts only those whose fixtures it names."""

import os
import shutil
import tempfile

import pytest

pytest_plugins = (
    "tests.servers",
    "tests.leaks",
    "tests.engines",
    "tests.s3_servers",
    "tests.api_servers",
    "tests.api_keys",
    "tests.small_bases",
)

_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files of this run in a folder of its own, so that what is left is seen as ours.

    In it the cache of engines of this run alone: tests fuse with the code that is here.
    """
    # pytest's own folders stay where they are looked for after a failure.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = config.stash[_FOLDER] = tempfile.mkdtemp(prefix="fewstep-tests-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    os.environ["FEWSTEP_CACHE"] = tempfile.mkdtemp(prefix="cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    tempfile.tempdir = None
    os.environ.pop("TMPDIR", None)
    shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)
