"""What the coverage page draws: bars of values beside what is expected, and pairs as a grid."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.covered import ColumnCoverage, Coverage, PairCoverage

#: Values of a column that are shown, those with the fewest pictures first where there are more.
SHOWN = 40
#: Pairs of columns that are shown.
PAIRS = 6
#: Shades of a cell: none, up to a third, two thirds, less than all, all.
SHADES = 4


@dataclass(frozen=True, slots=True)
class ValueBar:
    """A value; widths from 0 to 1 of the longest bar."""

    value: str
    made: int
    expected: int | None
    width: float
    #: Where what is expected ends.
    mark: float | None


@dataclass(frozen=True, slots=True)
class ColumnChart:
    """A column's values; `hidden`: how many are not shown."""

    column: str
    bars: tuple[ValueBar, ...]
    hidden: int


@dataclass(frozen=True, slots=True)
class PairCell:
    """Pictures with two values; `shade` from 0 (none) to 4 (all that are expected)."""

    made: int
    expected: int | None
    shade: int


@dataclass(frozen=True, slots=True)
class PairChart:
    """A line for each value of the first column, a cell in it for each of the second."""

    columns: tuple[str, str]
    head: tuple[str, ...]
    lines: tuple[tuple[str, tuple[PairCell, ...]], ...]


def column_chart(column: ColumnCoverage) -> ColumnChart:
    """The bars of a column."""
    values = column.values
    longest = max((max(one.made, one.expected or 0) for one in values), default=0) or 1
    shown = values
    if len(values) > SHOWN:
        shown = tuple(sorted(values, key=lambda one: (one.made, one.value))[:SHOWN])
    bars = tuple(
        ValueBar(
            one.value,
            one.made,
            one.expected,
            one.made / longest,
            None if one.expected is None else one.expected / longest,
        )
        for one in shown
    )
    return ColumnChart(column.column, bars, len(values) - len(shown))


def pair_charts(coverage: Coverage) -> list[PairChart]:
    """The first pairs of columns."""
    return [_pair_chart(one) for one in coverage.pairs[:PAIRS]]


def _pair_chart(pair: PairCoverage) -> PairChart:
    head = _names(*pair.made.values(), *pair.expected.values())
    most = max((n for some in pair.made.values() for n in some.values()), default=0)
    lines = []
    for first in _names(pair.made, pair.expected):
        made, expected = pair.made.get(first, {}), pair.expected.get(first, {})
        cells = [
            _cell(made.get(second, 0), expected.get(second, 0) if pair.expected else None, most)
            for second in head
        ]
        lines.append((first, tuple(cells)))
    return PairChart(pair.columns, tuple(head), tuple(lines))


def _cell(made: int, expected: int | None, most: int) -> PairCell:
    whole = most if expected is None else expected
    share = min(1.0, made / whole) if whole else 0.0
    return PairCell(made, expected, int(share * (SHADES - 1)) + (1 if made else 0))


def _names(*some: Mapping[str, object]) -> list[str]:
    return sorted({name for one in some for name in one})
