"""What a test may not leave behind: processes, threads, files in the temporary folder.

A fixture of a wider scope (a server for the whole session) may: what appears while it is set up is
its own, and so are the children of its processes.
"""

import os
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.servers import wait_until

#: How what we make in the temporary folder is called.
PREFIX = "fewstep"
#: Threads that pools of servers and libraries keep for their next task.
POOLED = ("asyncio_", "AnyIO worker thread", "ThreadPoolExecutor-", "QueueFeederThread", "tqdm")
#: `FEWSTEP_TEST_LEAKS=1 make test` looks behind every test: servers that a test starts lazily for
#: its whole module must be told apart from leaks by `lasting` first.
CHECKED = os.environ.get("FEWSTEP_TEST_LEAKS") == "1"
#: What ends by itself is given so long.
GRACE_S = 20.0


def processes() -> set[psutil.Process]:
    """Our descendants; those that have ended and wait to be asked are none."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.add(child)
        except psutil.NoSuchProcess:
            continue
    return found


def threads() -> set[threading.Thread]:
    """Threads that would keep this process from ending."""
    living = (one for one in threading.enumerate() if not one.daemon)
    return {one for one in living if not one.name.startswith(POOLED)}


def files() -> set[Path]:
    """What lies in the session's temporary folder under a name of ours."""
    return set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


@dataclass
class Surroundings:
    """What there is at some moment, and may be there later."""

    processes: set[psutil.Process] = field(default_factory=processes)
    threads: set[threading.Thread] = field(default_factory=threads)
    files: set[Path] = field(default_factory=files)

    def add(self, before: "Surroundings") -> None:
        """Allow whatever has appeared since `before` to stay."""
        self.processes |= processes() - before.processes
        self.threads |= threads() - before.threads
        self.files |= files() - before.files

    def leaks(self) -> list[str]:
        """What is there now beside it, in words."""
        new = {one for one in processes() - self.processes if not self._is_child(one)}
        return [
            *(f"process {one.pid}: {_command(one)}" for one in new),
            *(f"thread {one.name}" for one in threads() - self.threads),
            *(f"file {path}" for path in files() - self.files),
        ]

    def _is_child(self, process: psutil.Process) -> bool:
        try:
            return any(parent in self.processes for parent in process.parents())
        except psutil.NoSuchProcess:
            return True


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return "it has just ended"


#: What fixtures of a wider scope have started, this session long.
_lasting = Surroundings(set(), set(), set())


@contextmanager
def lasting() -> Iterator[None]:
    """What is started inside belongs to a fixture of a wider scope, though a test asked for it."""
    before = Surroundings()
    try:
        yield
    finally:
        _lasting.add(before)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    """Note what belongs to a fixture that outlives its first test."""
    if fixturedef.scope == "function":
        return (yield)
    with lasting():
        return (yield)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    # A test of the chaos suite has its bench, which stands for all faults and examines each.
    if not CHECKED or request.node.get_closest_marker("chaos"):
        yield
        return
    before = Surroundings()
    yield
    allowed = Surroundings(
        before.processes | _lasting.processes,
        before.threads | _lasting.threads,
        before.files | _lasting.files,
    )
    try:
        wait_until(lambda: not allowed.leaks(), "what was started to end", GRACE_S)
    except AssertionError:
        pytest.fail(f"left behind: {'; '.join(allowed.leaks())}")
