"""Telling our processes from others, and ending them."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from fewstep.processes import (
    STACK_VARIABLE,
    ProcessMark,
    is_alive,
    mark_of,
    members,
    of_stack,
    stop,
)
from tests.servers import wait_until

#: Ignores SIGTERM, has a child in a process group of its own, and says when both are there.
STUBBORN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def stubborn() -> Iterator[tuple[ProcessMark, int]]:
    """The mark of such a process, and its child's number."""
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={STACK_VARIABLE: "of-the-test"},
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        mark = mark_of(process.pid)
        # A process that has just begun another program has no environment for a moment.
        wait_until(lambda: child in of_stack("of-the-test"), "the child's environment")
        yield mark, child
        stop(lambda: members(mark) | of_stack("of-the-test"), 0.1)


def test_a_session_ends_with_all_its_children(stubborn: tuple[ProcessMark, int]) -> None:
    mark, child = stubborn
    assert is_alive(mark)
    assert members(mark) == of_stack("of-the-test") == {mark.pid, child}
    assert stop(lambda: members(mark), 0.2) == set()
    wait_until(lambda: not of_stack("of-the-test"), "the end of all")
    assert not is_alive(mark)


def test_children_whose_parent_was_killed_are_found(stubborn: tuple[ProcessMark, int]) -> None:
    mark, child = stubborn
    stop(lambda: {mark.pid} & members(mark), 0.0)
    assert not is_alive(mark)
    assert members(mark) <= {child}
    assert stop(lambda: members(mark) | of_stack("of-the-test"), 1.0) == set()


def test_a_recycled_number_is_a_stranger(stubborn: tuple[ProcessMark, int]) -> None:
    mark, _ = stubborn
    older = ProcessMark(pid=mark.pid, started=mark.started - 1)
    assert not is_alive(older)
    assert members(older) == set()
    gone = ProcessMark(pid=mark.pid, started=0.0)
    assert members(gone) == set()
