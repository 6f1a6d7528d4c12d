"""Records of what is unpacked when it is read: parquet, Arrow and tars, by a child process."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

from jobs.errors import InvalidInput
from jobs.sources.records import Record

#: Bytes that reading one file may take.
MEMORY = 1 << 30

TableFormat = Literal["parquet", "arrow", "tar"]


def table_records(
    file: BinaryIO, kind: TableFormat, name: str, dropped: Sequence[str] = ()
) -> Iterator[Record]:
    """The records of a file on disk; columns in `dropped` are not read.

    Raises InvalidInput where it is no such file, or would take more memory than `MEMORY`.
    """
    words = [kind, json.dumps(list(dropped)), str(MEMORY)]
    # -P: no module of the folder where somebody happens to stand.
    command = [sys.executable, "-P", "-m", "jobs.sources.child", *words]
    with subprocess.Popen(
        command, stdin=file.fileno(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
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
                raise InvalidInput(
                    "reading it ended by itself, or took more memory than it may",
                    where=name,
                    remedy="write it anew, as JSONL for example",
                )
        finally:
            # Whoever stops reading early leaves nobody behind.
            child.kill()
