"""`make bench QUICK=1` runs every row; what is checked is the table's form, never a time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import ROWS

#: Lines of each row in the quick form.
LINES = {"engine": 1, "end_to_end": 4, "ray_data": 1, "codecs": 3, "memory": 1, "growth": 1}

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The printed table and the JSON of one quick run of everything."""
    out = tmp_path_factory.mktemp("results")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads((out / "quick.json").read_text("utf-8"))
    return done.stdout, found


def test_every_row_has_its_lines(run: tuple[str, dict[str, Any]]) -> None:
    rows = [line["row"] for line in run[1]["lines"]]
    assert {row: rows.count(row) for row in rows} == LINES
    assert set(rows) == set(ROWS)


def test_a_line_holds_what_was_measured(run: tuple[str, dict[str, Any]]) -> None:
    for line in run[1]["lines"]:
        assert min(line["ours"], line["theirs"], line["ratio"]) > 0, line
        assert all(line["rounds"].values()), line
        assert line["reached"] in (True, False) if line["wanted"] else line["reached"] is None


def test_both_sides_make_the_same_pictures(run: tuple[str, dict[str, Any]]) -> None:
    [engine] = [line for line in run[1]["lines"] if line["row"] == "engine"]
    assert int(engine["note"].split("differ by ")[1].split()[0]) <= 1


def test_the_table_names_its_machine_and_command(run: tuple[str, dict[str, Any]]) -> None:
    printed, found = run
    assert found["command"].startswith("python -m benchmarks --quick")
    assert {"cpu", "cores", "torch_threads", "switches", "packages"} <= set(found["machine"])
    assert found["machine"]["torch_threads"] == 1
    # A head, a rule, and the lines.
    assert len(printed.splitlines()) == len(found["lines"]) + 2
