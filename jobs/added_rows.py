"""Rows that an extension adds: read, checked and written down as a job's own, in its columns."""

import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress

from jobs.catalog import Catalog
from jobs.errors import FewstepError, InvalidInput, NothingToRender
from jobs.intake import row_warnings, tally_of, write_rows
from jobs.job import ColumnKind, ExtensionRequest, Job, Rows
from jobs.layout import JobLayout
from jobs.recipe import Frozen
from jobs.row_checks import RowRecipes
from jobs.rows import Row, Scalar
from jobs.sources.reading import Reading, SourceRows
from jobs.spool import kind_of
from jobs.store import Store
from jobs.templates.template import Template


class Added(Frozen):
    """Rows as they were written down, and what their submitter should know of them."""

    rows: Rows
    warnings: tuple[str, ...]


class _Checks:
    """What a row of an extension is held to: a job's own checks, and the dataset's columns."""

    def __init__(self, recipes: RowRecipes, job: Job, source: Reading) -> None:
        self._recipes, self._known, self._dropped = recipes, job.rows.columns, source.drop
        self._leaves_out = source.bad_rows == "quarantine"

    def check(self, row: Row, where: str) -> None:
        """Raise InvalidInput for a row that is bad by itself: it may be left out."""
        self._recipes.check(row, where)
        self._check_values(row.extra, where)
        # A column too many is no fault of one row: nothing is left out for it.
        if not self._leaves_out:
            self._check_names(row.extra, where)

    def note(self, row: Row, where: str) -> None:
        """Count a row in; raises InvalidInput for one that cannot be added."""
        self._recipes.count_in(row, where)
        self._check_values(row.extra, where)
        self._check_names(row.extra, where)

    def check_template(self, template: Template) -> None:
        """Raise InvalidInput for a template whose choices have no column in the dataset."""
        found = template.prompts.columns
        self._check_names(found, "template")
        for name, kind in found.items():
            self._check_kind(name, kind, "template")

    def kept(self, found: Mapping[str, ColumnKind]) -> dict[str, ColumnKind]:
        """Those of these columns that are written."""
        return {name: kind for name, kind in found.items() if name not in self._dropped}

    def _check_names(self, names: Iterable[str], where: str) -> None:
        for name in names:
            if name not in self._known and name not in self._dropped:
                raise InvalidInput(
                    f"the dataset has no column {name!r}",
                    where=where,
                    remedy=f"it has {', '.join(self._known)[:100] or 'none of your own'}; "
                    f"leave it out: --drop {name}",
                )

    def _check_values(self, values: Mapping[str, Scalar], where: str) -> None:
        for name, value in values.items():
            self._check_kind(name, kind_of(value), where)

    def _check_kind(self, name: str, kind: ColumnKind | None, where: str) -> None:
        known = self._known.get(name, "string")
        fits = kind is None or known in (kind, "string") or (known, kind) == ("float", "int")
        if not fits and name not in self._dropped:
            raise InvalidInput(
                f"the column {name!r} holds {kind} values; in the dataset it is {known}",
                where=where,
                remedy="write its values as the dataset has them",
            )


def write_added(
    store: Store,
    layout: JobLayout,
    catalog: Catalog,
    job: Job,
    request: ExtensionRequest,
    rows: Iterable[Row] | Template,
    repeats: int,
) -> Added:
    """Write rows of a dataset's extension, `repeats` images each, into a folder of their own.

    What a job may have in its rows, these may have: settings, seeds, repeats, templates; bad ones
    are refused or left out as `request` says. Raises InvalidInput, and leaves no row then.
    """
    recipes = RowRecipes.of_job(catalog, job)
    checks = _Checks(recipes, job, request.source)
    if isinstance(rows, SourceRows):
        # There, a bad row is named by its file and line, or left out.
        rows.check = checks.check
    tally = tally_of(request.expand, rows, note=checks.note)
    if tally.template is not None:
        checks.check_template(tally.template)
    folder = f"{layout.scratch}rows-{uuid.uuid4().hex[:16]}/"
    try:
        found = write_rows(store, tally, recipes, folder)
        if not found.count:
            raise NothingToRender(
                "there is no row in it", where="prompts", remedy="give at least one"
            )
    except FewstepError:
        # The first error is the one to tell, even where cleaning up fails too.
        with suppress(FewstepError):
            store.delete_prefix(folder)
        raise
    found = found.model_copy(update={"columns": checks.kept(found.columns)})
    told = row_warnings(job.recipe, tally, found, found.count * repeats)
    return Added(rows=found, warnings=tuple(told))
