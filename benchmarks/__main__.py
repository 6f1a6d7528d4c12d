"""`make bench`: every row in one run, one table, ratios from side by side.

python -m benchmarks [--rows codecs,engine] [--quick] [--out FOLDER]
"""

import argparse
import os
import sys
import time
import traceback
import warnings
from importlib import import_module
from pathlib import Path

#: Before torch is loaded: it reads them once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# They tell of optional packages on every import.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

RESULTS = Path(__file__).resolve().parent / "results"
ROWS = ("engine", "end_to_end", "ray_data", "codecs", "memory", "growth")


def arguments(words: list[str]) -> argparse.Namespace:
    """What to run; ends the process with a message where a row is unknown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", default="", help=f"some of {','.join(ROWS)}; all without it")
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    found = parser.parse_args(words)
    found.rows = [name for name in found.rows.split(",") if name] or list(ROWS)
    if unknown := sorted(set(found.rows) - set(ROWS)):
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return found


def main(words: list[str]) -> int:
    """Run the rows, print the table, write the JSON; 0 whatever was reached, 1 if a row broke."""
    wanted = arguments(words)
    warnings.filterwarnings("ignore")
    from benchmarks.machine import describe, sentence
    from benchmarks.measure import Line
    from benchmarks.table import as_markdown, write_json, write_readme
    from benchmarks.workload import FULL, QUICK, THREADS
    from workers.engine import pick_device

    pick_device(THREADS)
    scale = QUICK if wanted.quick else FULL
    machines = [describe()]
    print(sentence(machines[0]), file=sys.stderr)
    whole = wanted.rows == list(ROWS) and not wanted.quick
    command = "make bench" if whole else " ".join(["python -m benchmarks", *words])
    path = wanted.out / f"{'full' if whole else 'quick' if wanted.quick else 'partial'}.json"
    lines: list[Line] = []
    broken = []
    for name in wanted.rows:
        started = time.perf_counter()
        try:
            lines += import_module(f"benchmarks.{name}").run(scale)
        except Exception:  # What the other rows found is not lost with it; the exit status tells.
            traceback.print_exc()
            broken.append(name)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        write_json(path, command, [*machines, describe()], lines)
    print(as_markdown(lines))
    print(path, file=sys.stderr)
    if broken:
        print(f"no figures of: {', '.join(broken)} (see above)", file=sys.stderr)
    elif whole:
        write_readme(command, [*machines, describe()], lines)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
