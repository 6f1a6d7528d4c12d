"""The simulation's quick form runs, and every figure is there; their size is not asked."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.scale import PARTS


def test_a_quick_run_has_every_part(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", "--quick", "--out", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads((tmp_path / "scale-quick.json").read_text("utf-8"))
    assert tuple(found) == PARTS
    goals = [goal for part in found.values() for goal in part["goals"]]
    for goal in goals:
        assert goal["reached"] >= 0, goal
        assert goal["met"] in (True, False) if goal["wanted"] else goal["met"] is None, goal
        assert goal["how"], "a simulated figure says what was simulated"
    # A head, a rule, and a line each.
    assert len(done.stdout.splitlines()) == len(goals) + 2
