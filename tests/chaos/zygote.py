"""A warm process that forks renderers and schedulers: torch and diffusers are loaded once.

    python -m tests.chaos.zygote     orders come on stdin, notices go to stdout, one JSON a line

It has one thread, so that a fork copies no half-held lock. When stdin ends it ends its children.
"""

import ctypes
import json
import os
import selectors
import signal
import sys
import traceback
from typing import Any

from tests.chaos.roles import ROLES, warm_up

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve orders until stdin ends."""
    warm_up()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _tell(ready=True)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(read_end, selectors.EVENT_READ)
    pids: set[int] = set()
    while True:
        for key, _ in selector.select():
            if key.fd == read_end:
                os.read(read_end, 4096)
                _reap(pids)
            elif line := sys.stdin.readline():
                order = json.loads(line)
                pid = _fork(order)
                pids.add(pid)
                _tell(order=order["id"], pid=pid)
            else:
                _end(pids)
                # Without the long farewell of the libraries.
                os._exit(0)


def _tell(**notice: Any) -> None:
    sys.stdout.write(json.dumps(notice) + "\n")
    sys.stdout.flush()


def _reap(pids: set[int]) -> None:
    while pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        pids.discard(pid)
        _tell(gone=pid, code=os.waitstatus_to_exitcode(status))


def _end(pids: set[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _fork(order: dict[str, Any]) -> int:
    # Told to leave before it listens, it leaves as soon as it does.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return pid
    status = 1
    try:
        _become(order)
        ROLES[order["role"]](order)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _become(order: dict[str, Any]) -> None:
    """A process of its own: its own output, environment and signals; it dies with the zygote."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.closerange(3, 256)
    os.environ.update(order["env"])


if __name__ == "__main__":
    main()
