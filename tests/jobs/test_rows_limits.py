"""Reading a prompt file takes bounded memory and ends, whatever is in the file."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.api_servers import RunningApi

MIB = 1 << 20
#: What reading may take beyond what the interpreter has when it starts.
ROOM = 48 * MIB

#: Reads a file under a limit of the kernel's; prints what came of it and the peak in bytes.
READ = f"""
import os, resource, sys
from jobs.errors import InvalidInput
from jobs.sources.reading import read_rows


def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


path, source = sys.argv[1:]
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * os.sysconf("SC_PAGE_SIZE") + {ROOM}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = peak()
try:
    with open(path, "rb") as lines:
        print(sum(1 for _ in read_rows(lines, source, "prompts")), "rows")
except InvalidInput as error:
    print(type(error).__name__, error)
print(peak() - before)
"""


def lines_of(kind: str) -> Iterator[bytes]:
    """A file that is meant to hurt, in pieces."""
    if kind == "one line of 100 MB":
        yield from (b"a" * MIB for _ in range(100))
    elif kind == "one JSON text of 100 MB":
        yield b'{"prompt": "'
        yield from (b"a" * MIB for _ in range(100))
    elif kind == "100 MB of NULs":
        yield from (bytes(MIB) for _ in range(100))
    elif kind == "100 000 rows":
        yield from (b'{"prompt": "a red circle", "label": %d}\n' % n for n in range(100_000))
    elif kind == "70 000 columns":
        names = b", ".join(b'"c%d": 0' % n for n in range(70_000))
        yield b'{"prompt": "a", ' + names + b"}\n"
    elif kind == "a nested megabyte":
        yield b'{"prompt": "a", "mine": ' + b"[" * 400_000 + b"]" * 400_000 + b"}\n"
    elif kind == "a number of 900 000 digits":
        yield b'{"prompt": "a", "mine": ' + b"9" * 900_000 + b"}\n"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("one line of 100 MB", "TooLarge prompts, line 1: the line is longer than 1000000 bytes"),
        ("one JSON text of 100 MB", "TooLarge prompts, line 1"),
        ("100 MB of NULs", "TooLarge prompts, line 1"),
        ("100 000 rows", "100000 rows"),
        ("70 000 columns", "more than 64 columns"),
        ("a nested megabyte", "nested too deeply"),
        ("a number of 900 000 digits", "not JSON"),
    ],
)
def test_memory_is_bounded(tmp_path: Path, kind: str, says: str) -> None:
    path = tmp_path / "prompts"
    with path.open("wb") as file:
        file.writelines(lines_of(kind))
    source = "text" if kind in ("one line of 100 MB", "100 MB of NULs") else "jsonl"
    read = subprocess.run(
        [sys.executable, "-c", READ, str(path), source], capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
    said, _, peak = read.stdout.strip().rpartition("\n")
    assert says in said
    assert int(peak) < ROOM


def test_the_limit_would_be_noticed(tmp_path: Path) -> None:
    """Reading the same line whole does not fit: the test above can fail."""
    path = tmp_path / "prompts"
    with path.open("wb") as file:
        file.writelines(lines_of("one line of 100 MB"))
    whole = READ.replace('sum(1 for _ in read_rows(lines, source, "prompts"))', "len(lines.read())")
    read = subprocess.run(
        [sys.executable, "-c", whole, str(path), "text"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "MemoryError" in read.stderr


def test_an_upload_beyond_its_limit_is_refused_before_it_is_read(api: RunningApi) -> None:
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=20)
    connection.putrequest("POST", "/v1/jobs")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", "17000000000")
    connection.endheaders(b"--x\r\n")
    reply = connection.getresponse()
    assert reply.status == 413
    assert json.loads(reply.read())["code"] == "too_large"
    connection.close()
