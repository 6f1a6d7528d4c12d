"""Coverage: how many pictures a dataset has of each value of its own columns, and of pairs."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations

from pydantic import Field

from jobs.recipe import Frozen
from jobs.rows import Scalar
from jobs.templates.template import COMBINATION

#: Values of a column that are counted in one unit, and of all its columns; letters of a value.
VALUES, VALUES_A_UNIT, LETTERS = 200, 1_000, 100
#: Values of a column that are counted in a whole dataset.
VALUES_IN_ALL = 1_000
#: Columns whose pairs are counted, values of such a column, and pairs of values in one unit.
PAIRED, PAIR_VALUES, PAIRS_A_UNIT = 8, 12, 600


class PairCounts(Frozen):
    """Pictures with a value of one column and one of another."""

    columns: tuple[str, str] = Field(strict=False)
    counts: dict[str, dict[str, int]]


class Counts(Frozen):
    """Pictures by value of their columns: small whatever the unit's size, and they add up."""

    pictures: int = 0
    #: Column -> value -> pictures. A column without a value in a row does not count it.
    values: dict[str, dict[str, int]] = Field(default_factory=dict)
    #: Every pair of columns that was counted, also where no picture has both.
    pairs: tuple[PairCounts, ...] = Field(default=(), strict=False)
    #: Columns that are not counted: too many values, long texts, or numbers with fractions.
    many: tuple[str, ...] = Field(default=(), strict=False)


class ValueTally:
    """Counts values row by row, in bounded memory; pairs of the first `paired` columns alone."""

    def __init__(self, columns: Iterable[str], limit: int = VALUES, paired: int = PAIRED) -> None:
        self._columns = [name for name in columns if name != COMBINATION]
        self._limit = limit
        self._many: set[str] = set()
        self._values: dict[str, Counter[str]] = {name: Counter() for name in self._columns}
        self._pairs: dict[tuple[str, str], Counter[tuple[str, str]]] = {
            pair: Counter() for pair in combinations(self._columns[:paired], 2)
        }
        self._pictures = 0

    def note(self, column: str) -> None:
        """Count one more column from now on; no row before had it."""
        if column != COMBINATION and column not in self._columns:
            self._columns.append(column)
            self._values[column] = Counter()

    def add(self, row: Mapping[str, Scalar]) -> None:
        """Count a picture with these columns; those that it lacks count as nothing."""
        self._pictures += 1
        shown: dict[str, str] = {}
        for name in [*self._values]:
            value = row.get(name)
            if value is not None and (text := self._count(name, value)) is not None:
                shown[name] = text
        for pair, cells in self._pairs.items():
            first, second = shown.get(pair[0]), shown.get(pair[1])
            if first is not None and second is not None:
                cells[first, second] += 1
        if self._pairs:
            self._drop_pairs()

    def _count(self, name: str, value: Scalar) -> str | None:
        """Count a value, and give its text; None where its column is not counted any more."""
        text, counts = shown_value(value), self._values[name]
        if text is not None:
            counts[text] += 1
        if text is None or len(counts) > self._limit:
            self._many.add(name)
            del self._values[name]
            return None
        return text

    def counts(self) -> Counts:
        """What was counted."""
        values, left = dict[str, dict[str, int]](), VALUES_A_UNIT
        many = set(self._many)
        for name, counts in sorted(self._values.items(), key=lambda one: len(one[1])):
            left -= len(counts)
            if left < 0:
                many.add(name)
            elif counts:
                values[name] = dict(sorted(counts.items()))
        in_order = {name: values[name] for name in self._columns if name in values}
        kept = [
            PairCounts(columns=pair, counts=_nested(cells))
            for pair, cells in self._pairs.items()
            if not many & {*pair}
        ]
        return Counts(
            pictures=self._pictures,
            values=in_order,
            pairs=tuple(_that_fit(kept)),
            many=tuple(name for name in self._columns if name in many),
        )

    def _drop_pairs(self) -> None:
        for pair in [*self._pairs]:
            counted = (self._values.get(name) for name in pair)
            if any(counts is None or len(counts) > PAIR_VALUES for counts in counted):
                del self._pairs[pair]


class Sum:
    """Counts of many units added up; a column or pair that one of them left out is left out."""

    def __init__(self) -> None:
        self.pictures = 0
        #: Pictures of units whose makers did not count them.
        self.uncounted = 0
        self._values: dict[str, Counter[str]] = {}
        self._pairs: dict[tuple[str, str], Counter[tuple[str, str]]] | None = None
        self._many: dict[str, None] = {}

    def add(self, counts: Counts | None, pictures: int) -> None:
        """Add a unit with so many pictures; None: nobody counted them."""
        self.pictures += pictures
        if counts is None:
            self.uncounted += pictures
        elif counts.pictures:
            self._add(counts)

    def total(self) -> Counts:
        """The sum of all."""
        many = {*self._many}
        pairs = self._pairs or {}
        return Counts(
            pictures=self.pictures,
            values={name: dict(found) for name, found in self._values.items() if name not in many},
            pairs=tuple(
                PairCounts(columns=pair, counts=_nested(cells))
                for pair, cells in pairs.items()
                if not many & {*pair}
            ),
            many=tuple(self._many),
        )

    def copy(self) -> "Sum":
        """Another one with the same sums."""
        other = Sum()
        other.pictures, other.uncounted = self.pictures, self.uncounted
        other._values = {name: Counter(found) for name, found in self._values.items()}
        if self._pairs is not None:
            other._pairs = {pair: Counter(cells) for pair, cells in self._pairs.items()}
        other._many = dict(self._many)
        return other

    def _add(self, counts: Counts) -> None:
        self._many |= dict.fromkeys(counts.many)
        for name, found in counts.values.items():
            sums = self._values.setdefault(name, Counter())
            sums.update(found)
            if len(sums) > VALUES_IN_ALL:
                self._many[name] = None
        for name in self._many:
            self._values.pop(name, None)
        here = {one.columns: _flat(one.counts) for one in counts.pairs}
        if self._pairs is None:
            self._pairs = {pair: Counter() for pair in here}
        for pair in [*self._pairs]:
            if pair in here:
                self._pairs[pair].update(here[pair])
            else:
                del self._pairs[pair]


def shown_value(value: Scalar) -> str | None:
    """A value as it is counted; None: it is no label (a fraction, a long text)."""
    if isinstance(value, float):
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LETTERS else None


def _that_fit(pairs: Iterable[PairCounts]) -> Iterable[PairCounts]:
    left = PAIRS_A_UNIT
    for one in pairs:
        left -= sum(map(len, one.counts.values()))
        if left < 0:
            return
        yield one


def _nested(cells: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (first, second), count in sorted(cells.items()):
        found.setdefault(first, {})[second] = count
    return found


def _flat(counts: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, str], int]:
    return {(one, other): n for one, some in counts.items() for other, n in some.items()}
