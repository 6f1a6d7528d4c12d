"""`python -m tests.chaos`: strikes every fault, and writes docs/fault-table.md."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.bench import Bench, bench
from tests.chaos.catalogue import FAULTS
from tests.chaos.fault import Fault
from tests.chaos.seats import NEW, OLD, redis_versions
from tests.chaos.table import Entry, append, read, table
from tests.s3_servers import STRICT, WEAK

#: Each version of Redis and each kind of store, once; `--all` runs every pair.
PAIRS = [(OLD, WEAK), (NEW, STRICT)]
EVERY_PAIR = [(OLD, STRICT), (NEW, WEAK), *PAIRS]


@dataclass(frozen=True)
class Task:
    """One run that is to be made."""

    fault: Fault
    redis: str
    store: str


def main() -> int:
    """Strike; the exit status is 1 where anything was not as wanted."""
    chosen = _arguments()
    faults = [one for one in FAULTS if not chosen.only or one.row in chosen.only.split(",")]
    results: Path = chosen.results
    if not chosen.resume:
        results.unlink(missing_ok=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    if NEW not in redis_versions():
        print(f"no Redis {NEW} here (Debian: apt-get install redis-server): {OLD} alone is used")
    tasks = [task for fault in faults for task in _tasks(fault, chosen.all) * chosen.times]
    _skip(faults, results)
    if chosen.quick:
        struck = {(entry.row, entry.name) for entry in read(results)}
        tasks = _one_each(faults, struck)
    for entry in read(results):
        match = [t for t in tasks if _key(t) == (entry.row, entry.name, entry.redis, entry.store)]
        if match:
            tasks.remove(match[0])
    print(f"{len(tasks)} runs")
    with ThreadPoolExecutor(chosen.jobs) as pool:
        list(pool.map(lambda share: _run(share, results), _shares(tasks, chosen.jobs)))
    entries = read(results)
    if chosen.resume or not chosen.only:
        chosen.out.write_text(table(FAULTS, entries))
        print(f"wrote {chosen.out}")
    return int(any(not entry.clean for entry in entries))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--only", default="", help="rows of the matrix: 1,4,27; a table is written with --resume"
    )
    parser.add_argument("--times", type=int, default=1, help="runs of each pair of servers")
    parser.add_argument("--all", action="store_true", help="every pair of servers")
    parser.add_argument("--quick", action="store_true", help="one pair of servers each, in turn")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--resume", action="store_true", help="keep the results that are there")
    parser.add_argument("--results", type=Path, default=Path(".chaos/results.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/fault-table.md"))
    return parser.parse_args()


def _key(task: Task) -> tuple[str, str, str, str]:
    return task.fault.row, task.fault.name, task.redis, task.store


def _tasks(fault: Fault, every: bool) -> list[Task]:
    """The runs of a fault; of one that concerns a single store or Redis, each of the other."""
    if fault.needs():
        return []
    here = redis_versions()
    pairs = [(r, s) for r, s in EVERY_PAIR if r in here and r in fault.redis and s in fault.stores]
    if every or len(pairs) < len(EVERY_PAIR):
        return [Task(fault, *pair) for pair in pairs]
    return [Task(fault, *pair) for pair in PAIRS]


def _one_each(faults: list[Fault], struck: set[tuple[str, str]]) -> list[Task]:
    """One run of every fault that was not struck yet."""
    found = []
    for number, fault in enumerate(faults):
        tasks = _tasks(fault, every=False)
        if tasks and (fault.row, fault.name) not in struck:
            found.append(tasks[number % len(tasks)])
    return found


def _skip(faults: list[Fault], results: Path) -> None:
    for fault in faults:
        if reason := fault.needs():
            print(f"skipped: {fault.row} {fault.name}: {reason}")
            append(results, Entry(fault.row, fault.name, "", "", skipped=reason))


def _shares(tasks: list[Task], jobs: int) -> list[list[Task]]:
    return [tasks[number::jobs] for number in range(jobs)]


def _run(tasks: list[Task], results: Path) -> None:
    if not tasks:
        return
    with bench() as made:
        for task in tasks:
            _run_one(made, task, results)


def _run_one(made: Bench, task: Task, results: Path) -> None:
    result = made.run(task.fault, task.redis, task.store)
    entry = Entry.of(result)
    append(results, entry)
    took = ", ".join(f"{value:.1f}" for value in result.recoveries)
    say = "ok " if result.clean else "BAD"
    print(
        f"{say} {entry.row:>2} {entry.name} (Redis {entry.redis}, {entry.store}): "
        f"{entry.injected} injected, recovery {took} s, {result.seconds:.0f} s",
        flush=True,
    )
    if not result.clean:
        print(f"    {result.verdict}\n{result.error}    see {result.folder}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
