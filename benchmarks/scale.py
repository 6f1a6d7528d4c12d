"""`make scale`: the queue and the scheduler as 1,000 renderers would use them, simulated.

python -m benchmarks.scale [--parts cycles,loop] [--quick] [--out FOLDER]

Redis, the queue's scripts, the policy and the scheduler's loop are the real ones; renderers only
sleep. Each figure says what else is not real.
"""

import argparse
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from benchmarks.goals import Goal, as_markdown, write_goals
from benchmarks.machine import bare

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = ("cycles", "loop", "memory", "submit", "small", "day")


def arguments(words: list[str]) -> argparse.Namespace:
    """What to run; ends the process with a message where a part is unknown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--parts", default="", help=f"some of {','.join(PARTS)}; all without it")
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    found = parser.parse_args(words)
    found.parts = [name for name in found.parts.split(",") if name] or list(PARTS)
    if unknown := sorted(set(found.parts) - set(PARTS)):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return found


def main(words: list[str]) -> int:
    """Run the parts, print the table, write the JSON; 0 whatever was reached, 1 if a part broke."""
    wanted = arguments(words)
    command = " ".join(["python -m benchmarks.scale", *words])
    path = wanted.out / ("scale-quick.json" if wanted.quick else "scale.json")
    goals: list[Goal] = []
    broken = []
    for name in wanted.parts:
        started, before = time.perf_counter(), bare()
        try:
            found = import_module(f"benchmarks.scale_{name}").run(wanted.quick)
        except Exception:  # What the other parts found is not lost with it; the exit status tells.
            traceback.print_exc()
            broken.append(name)
            continue
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        write_goals(path, command, [before, bare()], found)
        goals += found
    print(as_markdown(goals))
    print(path, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
