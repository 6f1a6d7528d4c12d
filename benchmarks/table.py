"""The table of a run: on the terminal, as JSON, and between the marks of the README."""

import json
from pathlib import Path
from typing import Any

from benchmarks.machine import sentence
from benchmarks.measure import Line

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
_HEAD = ("what", "against", "ours", "theirs", "unit", "ratio", "wanted", "reached", "note")


def as_markdown(lines: list[Line]) -> str:
    """A table in Markdown, which reads well on a terminal too."""
    rows = [_HEAD, tuple("-" * len(name) for name in _HEAD), *(_cells(line) for line in lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def write_json(
    path: Path, command: str, machines: list[dict[str, object]], lines: list[Line]
) -> None:
    """The run with every round's figure; `machines`: as it was at the start and at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "command": command,
        "machine": machines[0],
        "load_at_end": machines[-1]["load"],
        "lines": [line.as_json() for line in lines],
    }
    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def write_readme(
    command: str, machines: list[dict[str, object]], lines: list[Line], readme: Path = README
) -> None:
    """Put the table of a full run between the README's marks; raises ValueError without them."""
    text = readme.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} has no marks {BEGIN} and {END}")
    first, last = machines[0], machines[-1]
    about = (
        f"`{command}` on {sentence(first)}. Load of the machine at the start {_load(first)}, "
        f"at the end {_load(last)} (one-minute average)."
    )
    middle = f"\n{about}\n\n{as_markdown(lines)}\n"
    readme.write_text(f"{before}{BEGIN}{middle}{END}{after}", "utf-8")


def _load(machine: dict[str, object]) -> str:
    loads = machine["load"]
    assert isinstance(loads, list)
    return f"{loads[0]:.1f}"


def _cells(line: Line) -> tuple[str, ...]:
    reached = {True: "yes", False: "no", None: ""}[line.reached]
    figures = (_short(line.ours), _short(line.theirs), line.unit, f"{line.ratio:.2f}x")
    return (line.what, line.against, *figures, line.wanted, reached, line.note)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
