"""Measuring: the order of rounds, the ratio of two sides, the README between its marks."""

from pathlib import Path

import pytest

from benchmarks.__main__ import arguments
from benchmarks.measure import Line, alternate, faster, quicker
from benchmarks.table import BEGIN, END, as_markdown, write_readme

MACHINE: dict[str, object] = {
    "cpu": "a processor",
    "cores": 2,
    "memory_gib": 24,
    "device": "cpu",
    "python": "3.11",
    "packages": {"torch": "2", "diffusers": "0"},
    "torch_threads": 1,
    "commit": "abc",
    "date": "today",
    "load": [1.25, 1, 1],
}


def test_rounds_run_in_turn_and_the_first_warms_up() -> None:
    calls: list[tuple[str, int]] = []

    def side(name: str, number: int) -> float:
        calls.append((name, number))
        return float(number)

    figures = alternate({"a": lambda n: side("a", n), "b": lambda n: side("b", n)}, 3)
    assert figures == {"a": [1, 2, 3], "b": [1, 2, 3]}
    assert [f"{name}{number}" for name, number in calls] == "a0 b0 a1 b1 b2 a2 a3 b3".split()


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    # A load that halves both sides of a round leaves its ratio as it was.
    rates = faster("row", "what", "against", [20, 10, 30], [10, 5, 10], least=2)
    assert (rates.ours, rates.theirs, rates.ratio) == (20, 10, 2)
    times = quicker("row", "what", "against", [10, 20, 10], [10, 50, 20], least=2.5)
    assert times.ratio == 2
    assert (rates.reached, times.reached) == (True, False)


@pytest.mark.parametrize(("ratio", "reached"), [(1.05, True), (1.06, False)])
def test_a_bound_from_above(ratio: float, reached: bool) -> None:
    line = Line("memory", "what", "against", "MiB", ratio, 1, ratio, most=1.05)
    assert (line.reached, line.wanted) == (reached, "<= 1.05x")


def test_the_table_stands_between_the_marks(tmp_path: Path) -> None:
    readme, line = tmp_path / "README.md", Line("r", "fast", "slow", "ms", 1, 2, 2)
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    for _ in range(2):
        write_readme("make bench", [MACHINE, MACHINE], [line], readme)
    text = readme.read_text("utf-8")
    assert text.startswith(f"before\n{BEGIN}\n`make bench` on a processor, 2 cores")
    assert text.endswith(f"{as_markdown([line])}\n{END}\nafter\n")
    assert "old" not in text
    assert "at the start 1.2" in text


def test_a_readme_without_marks_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match="has no marks"):
        write_readme("make bench", [MACHINE, MACHINE], [], readme)


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments(["--rows", "codecs,engine"]).rows == ["codecs", "engine"]
    with pytest.raises(SystemExit):
        arguments(["--rows", "codecs,speed"])
    assert "there is no row speed" in capsys.readouterr().err
