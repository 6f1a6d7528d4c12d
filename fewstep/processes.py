"""Processes of ours: told apart from strangers with a recycled number, and ended for certain."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from jobs.recipe import Frozen

#: In the environment of every process of a stack: the stack's id.
STACK_VARIABLE = "FEWSTEP_STACK"
_POLL_S = 0.05
_PR_SET_CHILD_SUBREAPER = 36


class ProcessMark(Frozen):
    """A process by number and start time, so that a recycled number is never taken for it."""

    pid: int
    #: Clock ticks since boot (Linux) or seconds since 1970; 0 where it had ended already.
    started: float


def mark_of(pid: int) -> ProcessMark:
    """The mark of a process that runs now."""
    return ProcessMark(pid=pid, started=_started(pid) or 0.0)


def is_alive(mark: ProcessMark) -> bool:
    """Whether that very process runs (a zombie does not)."""
    return _started(mark.pid) == mark.started != 0.0


def members(mark: ProcessMark) -> set[int]:
    """The process, its descendants, and whoever is left of the session that it led.

    A session outlives its leader, and its number is not given away while it has members: so
    children of a head that was killed are still found. Where the number belongs to a stranger
    by now, nothing is.
    """
    started = _started(mark.pid)
    if started is not None and started != mark.started:
        return set()
    found = {mark.pid} if started else set()
    for pid in psutil.pids():
        if _session(pid) == mark.pid and (_started(pid) or 0.0) >= mark.started > 0.0:
            found.add(pid)
    return found | set(_descendants(mark)) - {os.getpid()}


def of_stack(stack_id: str) -> set[int]:
    """Every process that carries the stack's id in its environment, as all but Redis do."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(STACK_VARIABLE) == stack_id:
                found.add(process.pid)
        except (psutil.Error, OSError):
            # Another user's process, or one that has just ended: not ours to stop.
            continue
    return {pid for pid in found if _started(pid) is not None} - {os.getpid()}


def servers_in(folder: Path, name: str) -> set[int]:
    """Every process of that name that works in `folder`.

    For Redis, which writes its title over its environment, so that `of_stack` cannot see it.
    """
    found = set()
    for process in psutil.process_iter():
        try:
            if process.name() == name and Path(process.cwd()) == folder.resolve():
                found.add(process.pid)
        except (psutil.Error, OSError):
            continue
    return {pid for pid in found if _started(pid) is not None}


def stop(find: Callable[[], set[int]], grace_s: float) -> set[int]:
    """End all processes that `find` names: SIGTERM, after `grace_s` seconds SIGKILL.

    Asks `find` anew until it names none, because processes may start others while they end.
    Returns what could not be ended (nothing, unless the kernel holds it).
    """
    seen = find()
    _signal(seen, signal.SIGTERM)
    soft = time.monotonic() + grace_s
    hard = soft + 5.0
    while (left := find()) and time.monotonic() < hard:
        seen |= left
        if time.monotonic() >= soft:
            _signal(left, signal.SIGKILL)
        _reap(seen)
        time.sleep(_POLL_S)
    _reap(seen)
    return left


def disown(process: subprocess.Popen[bytes]) -> ProcessMark:
    """The mark of a process just started, which may outlive us; we never wait for it."""
    mark = mark_of(process.pid)
    # Popen warns when it is dropped while its process runs, which here is the purpose.
    process.returncode = 0
    return mark


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            # It ended by itself between being found and now.
            continue


def _reap(pids: Iterable[int]) -> None:
    """Let the kernel forget those of our own children that have ended."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            # Not a child of this process: its parent or init reaps it.
            continue


def _descendants(mark: ProcessMark) -> Iterator[int]:
    try:
        children = psutil.Process(mark.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    yield from (child.pid for child in children if _started(child.pid) is not None)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _started(pid: int) -> float | None:
    """When the process started; None where there is none, or only its zombie."""
    try:
        # Field 22 after the name in brackets. psutil's time would shift with the clock.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents die, so that none stays a zombie.

    Linux alone; elsewhere they are init's, as ever.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
