"""`python -m fewstep.keeper HOME`: ends the stack of HOME once whoever started it is no more."""

import shutil
import signal
import sys
from pathlib import Path

from fewstep.local import Stack
from fewstep.processes import adopt_orphans
from jobs.errors import NotFound


def main() -> int:
    """Wait for the end of standard input, which is the end of our parent; then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    adopt_orphans()
    home = Path(sys.argv[1])
    sys.stdin.buffer.read()
    try:
        Stack.attach(home).stop(grace_s=0.5)
    except NotFound:
        # It was stopped in good order, or never started.
        pass
    shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
