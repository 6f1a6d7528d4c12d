"""Goals: a wanted figure beside the one that was reached, what of it is virtual, and the table."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_HEAD = ("what", "wanted", "reached", "", "how")


@dataclass(frozen=True)
class Goal:
    """A figure and its bound. `how`: what was real and what virtual, and what else was seen."""

    part: str
    what: str
    unit: str
    reached: float
    least: float | None = None
    most: float | None = None
    how: str = ""
    #: What lies behind the figure, for the JSON.
    seen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wanted(self) -> str:
        """The bound, for people; "" where there is none."""
        if self.least is not None:
            return f">= {self.least:g} {self.unit}"
        return "" if self.most is None else f"<= {self.most:g} {self.unit}"

    @property
    def met(self) -> bool | None:
        """Whether the figure is within its bound; None where there is none."""
        if self.least is not None:
            return self.reached >= self.least
        return None if self.most is None else self.reached <= self.most

    def as_json(self) -> dict[str, Any]:
        """All of it, with the bound's verdict."""
        return {**asdict(self), "wanted": self.wanted, "met": self.met}


def as_markdown(goals: list[Goal]) -> str:
    """A table in Markdown, which reads well on a terminal too."""
    rows = [_HEAD, tuple("---" for _ in _HEAD), *(_cells(goal) for goal in goals)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def write_goals(
    path: Path, command: str, machines: list[dict[str, object]], goals: list[Goal]
) -> None:
    """The run as JSON; `machines`: as it was at the start and at the end.

    Parts of the file that this run did not measure stay as they were, each with its own run.
    """
    parts: dict[str, Any] = {}
    if path.exists():
        parts = json.loads(path.read_text("utf-8"))
    for part in dict.fromkeys(goal.part for goal in goals):
        parts[part] = {
            "command": command,
            "machine": machines[0],
            "load_at_end": machines[-1]["load"],
            "goals": [goal.as_json() for goal in goals if goal.part == part],
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(parts, indent=1) + "\n", "utf-8")


def _cells(goal: Goal) -> tuple[str, ...]:
    verdict = {True: "yes", False: "no", None: ""}[goal.met]
    return (goal.what, goal.wanted, f"{_short(goal.reached)} {goal.unit}", verdict, goal.how)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
