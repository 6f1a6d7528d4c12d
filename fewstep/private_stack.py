"""A stack for one command: in a folder of its own, and gone afterwards whatever happens."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fewstep
from fewstep.healing import Say
from fewstep.local import Stack
from fewstep.processes import adopt_orphans
from fewstep.stack_state import COMPONENTS

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Nothing of a private stack is worth waiting for: its store is thrown away.
_GRACE_S = 1.0


@contextmanager
def private_stack(renderers: int, say: Say, parts: tuple[str, ...] = COMPONENTS) -> Iterator[Stack]:
    """A stack that is up inside the block, and whose processes and folder are gone after it.

    Also where this process is interrupted, told to end or killed: a keeper, which lives in
    another session, ends the stack when this process is no more. To be used in the main thread.
    """
    adopt_orphans()
    home = Path(tempfile.mkdtemp(prefix="fewstep-"))
    keeper = _start_keeper(home)
    try:
        with Stack.start(home, renderers, say, private=True, parts=parts) as stack:
            yield stack
    finally:
        with _undisturbed():
            _end_keeper(keeper)
            shutil.rmtree(home, ignore_errors=True)


def _start_keeper(home: Path) -> subprocess.Popen[bytes]:
    root = Path(fewstep.__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-m", "fewstep.keeper", str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=root,
        start_new_session=True,
    )


def _end_keeper(keeper: subprocess.Popen[bytes]) -> None:
    """Let the keeper see that we are done; it ends what may be left, then itself."""
    if keeper.stdin is not None:
        keeper.stdin.close()
    keeper.wait()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Cleaning up is not interrupted by a second Ctrl-C."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
