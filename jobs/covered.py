"""What there is of a dataset beside what is expected at the end; what was not taken, and why."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import Field

from jobs.coverage import VALUES_IN_ALL, Counts, PairCounts, Sum, ValueTally
from jobs.errors import NotFound
from jobs.extent import Extent
from jobs.job import Job, Rows
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.recipe import Frozen
from jobs.store import Store
from jobs.templates.expansion import TemplateRequest
from jobs.templates.fair import fair_counts
from jobs.templates.template import Template

#: Rows of a template that are made to be counted; of more, the fair counts are worked out.
EXACT_ROWS = 20_000
#: Errors that are told, the commonest first.
ERRORS_TOLD = 50
OTHER = "other errors"
#: Begins what is said of an image whose last picture a filter turned away.
REJECTED = "rejected:"


class ValueCoverage(Frozen):
    """A value of a column."""

    value: str
    made: int = Field(description="Pictures that have it")
    expected: int | None = Field(description="At the end, if all succeed; null: nobody knows")


class ColumnCoverage(Frozen):
    """A column of the prompt source's own, and its values."""

    column: str
    values: tuple[ValueCoverage, ...] = Field(strict=False)


class PairCoverage(Frozen):
    """Two columns: value of the first -> value of the second -> pictures."""

    columns: tuple[str, str] = Field(strict=False)
    made: dict[str, dict[str, int]]
    expected: dict[str, dict[str, int]] = Field(description="At the end; empty: nobody knows")


class Coverage(Frozen):
    """How many pictures of each value there are, and what became of the rest."""

    id: str
    images: int = Field(description="Of the job, with what was added to it")
    counted: int = Field(description="Images of the shards that these figures rest on")
    made: int = Field(description="Pictures among them")
    uncounted: int = Field(description="Pictures of shards whose makers counted no values")
    exact: bool = Field(
        description="Whether `expected` is exact: false for more than 20,000 rows of a sampled or "
        "balanced template, where it is the fair count"
    )
    columns: tuple[ColumnCoverage, ...] = Field(strict=False)
    pairs: tuple[PairCoverage, ...] = Field(strict=False)
    many: tuple[str, ...] = Field(
        strict=False,
        description="Columns that are not counted: too many values, long texts, or fractions",
    )
    errors: dict[str, int] = Field(
        description="Error -> images without a picture that ended with it; until a retry that is "
        "under way has ended, also those that it made"
    )
    rejects: dict[str, int] = Field(
        description="Filter, `nan` or `flat` -> pictures that were turned away for it, each seed's"
    )
    marks: dict[str, int] = Field(description="Filter -> pictures beyond its limit that were kept")


@dataclass(frozen=True, slots=True)
class Expected:
    """Images by value when every image is made."""

    counts: Counts = field(default_factory=Counts)
    exact: bool = True


class Tallied:
    """Units added up, as their manifests tell them."""

    def __init__(self) -> None:
        self.images = 0
        self.sum = Sum()
        self._errors: Counter[str] = Counter()
        self._rejects: Counter[str] = Counter()
        self._marks: Counter[str] = Counter()

    def add(self, manifests: Iterable[Manifest]) -> None:
        """Add these units."""
        for one in manifests:
            self.images += one.count
            self.sum.add(one.counts, one.ok)
            self._errors.update({why: n for why, n in one.status_dict.items() if _is_error(why)})
            if len(self._errors) > 2 * ERRORS_TOLD:
                self._errors = Counter(_commonest(self._errors))
            self._rejects.update(one.rejects)
            self._marks.update(one.marks)

    def with_more(self, manifests: Iterable[Manifest]) -> "Tallied":
        """Another one, of these units too."""
        other = Tallied()
        other.images, other.sum = self.images, self.sum.copy()
        other._errors, other._rejects = Counter(self._errors), Counter(self._rejects)
        other._marks = Counter(self._marks)
        other.add(manifests)
        return other

    def coverage(
        self, job: Job, images: int, expected: Expected, failed: Mapping[str, int] | None = None
    ) -> Coverage:
        """What there is beside what is expected.

        `failed`: of all images without a picture the last error, where that is known: the units
        added up count an image that was retried with each of its tries.
        """
        errors = self._errors if failed is None else Counter(failed)
        counts = self.sum.total()
        told = {*counts.values, *expected.counts.values}
        # Whole numbers in a column of fractions are fractions in the dataset.
        names = [n for n, kind in job.rows.columns.items() if kind != "float" and n in told]
        return Coverage(
            id=job.id,
            images=images,
            counted=self.images,
            made=self.sum.pictures,
            uncounted=self.sum.uncounted,
            exact=expected.exact,
            columns=tuple(
                _column(name, counts.values.get(name, {}), expected.counts.values.get(name))
                for name in names
                if name not in counts.many
            ),
            pairs=_pairs(counts, expected.counts),
            many=counts.many,
            errors=dict(_commonest(Counter({w: n for w, n in errors.items() if _is_error(w)}))),
            rejects=dict(self._rejects.most_common()),
            marks=dict(self._marks.most_common()),
        )


def _is_error(why: str) -> bool:
    """Whether an image ended with an error; what filters turned away is told by `rejects`."""
    return why != "ok" and not why.startswith(REJECTED)


def expected_of(store: Store, layout: JobLayout, extent: Extent) -> Expected:
    """What a dataset has if every image succeeds, as far as that is known without its rows."""
    sources = {one.first_row: one.rows for block in extent.blocks for one in block.sources}
    known = {first: _of_rows(store, layout, rows) for first, rows in sources.items()}
    total, exact = Sum(), True
    for block in extent.blocks:
        for source in block.sources:
            one = known[source.first_row]
            if one is None:
                return Expected()
            total.add(_times(one.counts, block.repeats), 0)
            exact &= one.exact
    return Expected(total.total(), exact)


def _of_rows(store: Store, layout: JobLayout, rows: Rows) -> Expected | None:
    """What rows hold; None: their prompts were deleted, or written by an earlier version."""
    try:
        if rows.template:
            data = store.get(layout.template(rows.prefix))
            found = _of_template(Template.of(TemplateRequest.model_validate_json(data)))
            return Expected(_only(found.counts, rows.columns), found.exact)
        counts = Counts.model_validate_json(store.get(layout.row_values(rows.prefix)))
        return Expected(_only(counts, rows.columns))
    except NotFound:
        return None


def _only(counts: Counts, columns: Container[str]) -> Counts:
    """Those of the columns that are written: an extension may leave some out."""
    return Counts(
        pictures=counts.pictures,
        values={name: found for name, found in counts.values.items() if name in columns},
        pairs=tuple(one for one in counts.pairs if all(name in columns for name in one.columns)),
        many=tuple(name for name in counts.many if name in columns),
    )


def _of_template(template: Template) -> Expected:
    prompts = template.prompts
    if prompts.count <= EXACT_ROWS:
        tally = ValueTally(prompts.columns, VALUES_IN_ALL)
        for row in prompts.rows(0, prompts.count):
            tally.add(row.extra)
        return Expected(tally.counts())
    values = {
        name: {value: round(rows) for value, rows in found.items()}
        for name, found in fair_counts(prompts).items()
    }
    return Expected(
        Counts(pictures=prompts.count, values=values), exact=prompts.mode == "combinatorial"
    )


def _times(counts: Counts, repeats: int) -> Counts:
    values = {
        name: {value: n * repeats for value, n in found.items()}
        for name, found in counts.values.items()
    }
    pairs = [
        PairCounts(
            columns=one.columns,
            counts={
                value: {other: n * repeats for other, n in cells.items()}
                for value, cells in one.counts.items()
            },
        )
        for one in counts.pairs
    ]
    images = counts.pictures * repeats
    return Counts(pictures=images, values=values, pairs=tuple(pairs), many=counts.many)


def _column(
    name: str, made: Mapping[str, int], expected: Mapping[str, int] | None
) -> ColumnCoverage:
    values = sorted({*made, *(expected or {})})
    return ColumnCoverage(
        column=name,
        values=tuple(
            ValueCoverage(
                value=value,
                made=made.get(value, 0),
                expected=None if expected is None else expected.get(value, 0),
            )
            for value in values
        ),
    )


def _pairs(made: Counts, expected: Counts) -> tuple[PairCoverage, ...]:
    known = {one.columns: one.counts for one in expected.pairs}
    there = {one.columns: one.counts for one in made.pairs}
    # Before the first picture nothing is counted, and all pairs are still to come.
    wanted = there if made.values else known
    return tuple(
        PairCoverage(columns=pair, made=there.get(pair, {}), expected=known.get(pair, {}))
        for pair in wanted
        if there.get(pair) or known.get(pair)
    )


def _commonest(errors: Counter[str]) -> Mapping[str, int]:
    """The commonest errors, and all others under one name."""
    rest = errors.pop(OTHER, 0)
    told = dict(errors.most_common(ERRORS_TOLD))
    rest += errors.total() - sum(told.values())
    return told | ({OTHER: rest} if rest else {})
