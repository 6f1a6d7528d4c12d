"""Records of what is unpacked when it is read: parquet, Arrow and tars, by a child process."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from tempfile import TemporaryFile
from threading import BoundedSemaphore
from typing import IO, BinaryIO, Literal

from jobs.errors import InvalidInput, NoCapacity
from jobs.sources.records import Record

log = logging.getLogger(__name__)

#: numpy's linear algebra, which nobody uses here, takes some 20 MB for each core at its start: on
#: 64 cores it alone would pass `MEMORY`.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

#: Bytes, and seconds of a processor, that reading one file may take.
MEMORY = 1 << 30
CPU_S = 1_800
#: Files that one process has read at a time, and how long a further one waits for its turn.
CHILDREN, TURN_S = 4, 60.0
_TURNS = BoundedSemaphore(CHILDREN)

TableFormat = Literal["parquet", "arrow", "tar"]


def table_records(
    file: BinaryIO, kind: TableFormat, name: str, dropped: Sequence[str] = ()
) -> Iterator[Record]:
    """The records of a file on disk; columns in `dropped` are not read.

    Raises InvalidInput where it is no such file, or would take more memory than `MEMORY` or time
    than `CPU_S`, and NoCapacity where `CHILDREN` others are read for long.
    """
    if not _TURNS.acquire(timeout=TURN_S):
        raise NoCapacity(
            f"{CHILDREN} other tables are being read", where=name, remedy="try again in a minute"
        )
    try:
        yield from _read(file, kind, name, dropped)
    finally:
        _TURNS.release()


def _read(file: BinaryIO, kind: TableFormat, name: str, dropped: Sequence[str]) -> Iterator[Record]:
    words = [kind, json.dumps(list(dropped)), str(MEMORY), str(CPU_S)]
    # -P: no module of the folder where somebody happens to stand.
    command = [sys.executable, "-P", "-m", "jobs.sources.child", *words]
    with (
        TemporaryFile(prefix="fewstep-") as said,
        subprocess.Popen(
            command,
            stdin=file.fileno(),
            stdout=subprocess.PIPE,
            stderr=said,
            env=os.environ | _ONE_THREAD,
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                told = json.loads(line)
                if "fatal" in told:
                    what, remedy = told["fatal"]
                    raise InvalidInput(what, where=name, remedy=remedy)
                where = f"{name}, row {told['n']}"
                if "e" in told:
                    what, remedy = told["e"]
                    yield Record(where, InvalidInput(what, where=where, remedy=remedy))
                else:
                    yield Record(where, told["v"])
            if child.wait() != 0:
                raise _ended(child.returncode, said, name)
        finally:
            # Whoever stops reading early leaves nobody behind.
            child.kill()


def _ended(status: int, said: IO[bytes], name: str) -> InvalidInput:
    """Why the child ended without a word to us."""
    said.seek(0)
    log.warning("table_child_ended status=%s said=%s", status, said.read()[-2_000:])
    if status == -signal.SIGXCPU:
        return InvalidInput(
            f"reading it takes more than {CPU_S} s of a processor",
            where=name,
            remedy="split it, or write it as JSONL",
        )
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return InvalidInput(
        f"reading it ended by itself ({how}), or took more memory than it may",
        where=name,
        remedy="write it anew, as JSONL for example",
    )
