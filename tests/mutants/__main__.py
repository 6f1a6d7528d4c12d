"""`make mutants`: takes each guard out of the queue's Lua and looks for a test that fails.

    python -m tests.mutants [WORD...]     only guards with such a word in their names

Writes docs/queue-guards.md: rows of guards that were not run stay as they are. Exit status 1: a
guard that no test needs.
"""

import os
import re
import sys
import tempfile
import traceback
from pathlib import Path

# What the tests import that is slow to: each guard's run is a fork of this process.
import boto3.session  # noqa: F401
import fastapi  # noqa: F401
import moto.server  # noqa: F401
import pyarrow.parquet  # noqa: F401
import pytest
import torch  # noqa: F401

from tests.mutants.guards import GUARDS, Guard

ROOT = Path(__file__).resolve().parents[2]
GUARDS_PAGE = ROOT / "docs" / "queue-guards.md"
#: Quick ones first: the first failure ends the run.
TESTS = (
    "test_shard_queue.py test_shard_queue_units.py test_shard_queue_replies.py "
    "test_shard_queue_order.py test_fair_shares.py test_shares_over_engines.py "
    "test_last_shards.py test_error_budget.py test_budget.py "
    "test_control.py test_restoring.py test_queue_guards.py test_quarantine.py test_events.py "
    "test_fair_shares_machine.py test_shard_queue_machine.py"
).split()
#: Runs at a time: each has a Redis of its own.
AT_ONCE = 2
PAGE = """# The guards of the queue

Each line is a condition or a write of the queue's script (`jobs/queue_*.lua`,
`jobs/shard_queue.lua`), and a test that fails when it is taken out (the first one found; there may
be more). Made by `make mutants`, which takes {count} guards out, one after another
(`tests/mutants/guards.py`), and runs the tests.

| without | this test fails |
|---|---|
"""


def main(words: list[str]) -> int:
    """1 where a guard is needed by no test."""
    chosen = [guard for guard in GUARDS if not words or any(word in guard.name for word in words)]
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fewstep-mutants-") as folder:
        running: dict[int, tuple[Guard, Path]] = {}
        left = list(enumerate(chosen))
        while left or running:
            while left and len(running) < AT_ONCE:
                number, guard = left.pop(0)
                output = Path(folder) / str(number)
                running[_start(guard, output)] = (guard, output)
            pid, status = os.wait()
            guard, output = running.pop(pid)
            found[guard.name] = _defender(guard, os.waitstatus_to_exitcode(status), output)
    spare = [name for name, test in found.items() if not test]
    if not spare:
        _write_page(found)
    print(f"{len(chosen)} guards, {len(spare)} that no test needs: {', '.join(spare) or 'none'}")
    return 1 if spare else 0


def _write_page(found: dict[str, str]) -> None:
    """Write what was found into the page; nothing where a guard has no row yet."""
    before = GUARDS_PAGE.read_text("utf-8") if GUARDS_PAGE.exists() else ""
    known = dict(re.findall(r"^\| (.+) \| `(.+)` \|$", before, re.MULTILINE)) | found
    if all(one.name in known for one in GUARDS):
        lines = [f"| {one.name} | `{known[one.name]}` |" for one in GUARDS]
        page = PAGE.format(count=len(lines)) + "\n".join(lines) + "\n"
        GUARDS_PAGE.write_text(page, "utf-8")


def _start(guard: Guard, output: Path) -> int:
    """Run the tests without the guard in a process of their own; its number."""
    if pid := os.fork():
        return pid
    os.chdir(ROOT)
    os.environ["FEWSTEP_MUTANT"] = guard.name
    file = os.open(output, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    folder = ROOT / "tests" / "jobs"
    # Plugins were imported with what is slow to import, and need no rewriting.
    quiet = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    quiet += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    # A test that fails half-way may leave a connection open.
    quiet += ["-W", "ignore::pytest.PytestUnraisableExceptionWarning"]
    files = [str(folder / name) for name in TESTS if (folder / name).exists()]
    code = 3
    try:
        code = int(pytest.main([*quiet, "-p", "tests.mutants.plugin", *files]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not the way out that the parent takes.
        os._exit(code)


def _defender(guard: Guard, code: int, output: Path) -> str:
    """The first test that failed without the guard; "" where none did."""
    said = output.read_text("utf-8", "replace")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+?)(?:\[.*\])?(?: - .*)?$", said, re.MULTILINE)
    if code not in (0, 1) or (code == 1) != bool(failed):
        raise SystemExit(f"{guard.name}: pytest ended with {code}\n{said[-2000:]}")
    test = failed[1] if failed else ""
    print(f"{guard.name}: {test or 'NO TEST'}", flush=True)
    return test


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
