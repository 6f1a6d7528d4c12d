"""Measuring: sides in turn within one run, medians, and ratios of what ran side by side."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Runs one round (0 warms up, its figure is thrown away) and gives its figure.
Side = Callable[[int], float]


def alternate(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """Figures of `rounds` rounds per side, after one that warms up.

    Every round runs each side once, every other round in reverse, so that whatever else the
    machine does falls on all of them.
    """
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(0)
    for number in range(1, rounds + 1):
        names = list(sides) if number % 2 else list(reversed(sides))
        for name in names:
            figures[name].append(sides[name](number))
    return figures


@dataclass(frozen=True)
class Line:
    """One line of the table: ours beside theirs, and how many times as good ours is."""

    row: str
    what: str
    against: str
    #: Of `ours` and `theirs`; where more of it is worse, the ratio is turned round.
    unit: str
    ours: float
    theirs: float
    ratio: float
    #: What the ratio should be: at least, or at most.
    least: float | None = None
    most: float | None = None
    note: str = ""
    #: Every round's figure, in the order of the rounds.
    rounds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def wanted(self) -> str:
        """The bound on the ratio, for people; "" where there is none."""
        if self.least is not None:
            return f">= {self.least:g}x"
        return "" if self.most is None else f"<= {self.most:g}x"

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is within its bound; None where there is none."""
        if self.least is not None:
            return self.ratio >= self.least
        return None if self.most is None else self.ratio <= self.most

    def as_json(self) -> dict[str, Any]:
        """All of it, with the bound's verdict."""
        return {**asdict(self), "wanted": self.wanted, "reached": self.reached}


def faster(
    row: str,
    what: str,
    against: str,
    ours: list[float],
    theirs: list[float],
    *,
    least: float | None = None,
    note: str = "",
    unit: str = "images/s",
) -> Line:
    """The line of two sides whose figures are rates (more is better).

    The ratio is the median of the rounds' own ratios: both sides of one met the same load.
    """
    return _line(row, what, against, unit, ours, theirs, _median_ratio(ours, theirs), least, note)


def quicker(
    row: str,
    what: str,
    against: str,
    ours: list[float],
    theirs: list[float],
    *,
    least: float | None = None,
    note: str = "",
    unit: str = "ms",
) -> Line:
    """The line of two sides whose figures are times (less is better); the ratio as in `faster`."""
    return _line(row, what, against, unit, ours, theirs, _median_ratio(theirs, ours), least, note)


def _median_ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def _line(
    row: str,
    what: str,
    against: str,
    unit: str,
    ours: list[float],
    theirs: list[float],
    ratio: float,
    least: float | None,
    note: str,
) -> Line:
    return Line(
        row=row,
        what=what,
        against=against,
        unit=unit,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        ratio=ratio,
        least=least,
        note=note,
        rounds={"ours": ours, "theirs": theirs},
    )
