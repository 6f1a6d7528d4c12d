"""The spool: a job's rows as JSONL pages in the store, written once and read by range."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

from jobs.coverage import ValueTally
from jobs.errors import InvalidInput
from jobs.job import PAGE_ROWS, ColumnKind, Job, Rows
from jobs.layout import JobLayout
from jobs.rows import MAX_COLUMNS, Row, Scalar
from jobs.shard_row import RESERVED_COLUMNS
from jobs.store import Store
from jobs.templates.expansion import TemplateRequest
from jobs.templates.template import Template

_INT64 = range(-(2**63), 2**63)


def spool_rows(store: Store, rows: Iterable[Row], prefix: str) -> Rows:
    """Write the rows as pages of `PAGE_ROWS` under `prefix`, which ends in a slash.

    Memory is bounded by one page. Raises InvalidInput naming the row where a column has one of
    our names; whatever is raised, by the rows themselves too, leaves no page behind.
    """
    columns: dict[str, ColumnKind | None] = {}
    values = ValueTally(())
    digest, count, page = hashlib.sha256(), 0, 0
    source = iter(rows)
    try:
        while some := list(islice(source, PAGE_ROWS)):
            for number, row in enumerate(some, start=count + 1):
                _note_columns(columns, row, number)
                for name in row.extra:
                    values.note(name)
                values.add(row.extra)
            data = b"".join(_line(row) for row in some)
            digest.update(data)
            store.put(JobLayout.page(prefix, page), data, content_type="application/jsonl")
            count, page = count + len(some), page + 1
        if (counted := values.counts()).values:
            data = counted.model_dump_json().encode()
            store.put(JobLayout.row_values(prefix), data, content_type="application/json")
    except BaseException:
        store.delete(JobLayout.page(prefix, number) for number in range(page + 1))
        raise
    return Rows(
        prefix=prefix,
        count=count,
        sha256=digest.hexdigest(),
        # A column of nulls alone holds no value that text could not hold.
        columns={name: kind or "string" for name, kind in columns.items()},
    )


def _line(row: Row) -> bytes:
    unsaid = {"repeats"} if row.recipe is not None else {"repeats", "recipe"}
    return row.model_dump_json(exclude=unsaid).encode() + b"\n"


def spool_template(store: Store, template: Template, prefix: str) -> Rows:
    """Write a template under `prefix`, which ends in a slash; its rows are made when they are read.

    Raises InvalidInput where a column has one of our names.
    """
    columns = template.prompts.columns
    for number, name in enumerate(columns):
        _check_column(name, 1, number)
    data = template.request.model_dump_json().encode()
    store.put(JobLayout.template(prefix), data, content_type="application/json")
    return Rows(
        prefix=prefix,
        count=template.prompts.count,
        sha256=hashlib.sha256(data).hexdigest(),
        columns=dict(columns),
        template=True,
    )


class RowPages:
    """Reads rows by range. Keeps the latest pages, because small shards share one; thread-safe."""

    def __init__(self, store: Store, kept: int = 4) -> None:
        self._store = store
        self._kept = kept
        self._pages: OrderedDict[str, list[bytes]] = OrderedDict()
        self._templates: OrderedDict[str, Template] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, job: Job, first_row: int, stop_row: int) -> list[Row]:
        """Rows `first_row` up to `stop_row` of a job; raises NotFound where a page is gone."""
        if job.rows.template:
            return list(self._template(job.rows.prefix).prompts.rows(first_row, stop_row))
        first_page, stop_page = first_row // PAGE_ROWS, -(-stop_row // PAGE_ROWS)
        lines: list[bytes] = []
        for page in range(first_page, stop_page):
            lines += self._lines(JobLayout.page(job.rows.prefix, page))
        skipped = first_page * PAGE_ROWS
        return [
            Row.model_validate_json(line)
            for line in lines[first_row - skipped : stop_row - skipped]
        ]

    def _template(self, prefix: str) -> Template:
        with self._lock:
            if prefix not in self._templates:
                data = self._store.get(JobLayout.template(prefix))
                self._templates[prefix] = Template.of(TemplateRequest.model_validate_json(data))
            self._templates.move_to_end(prefix)
            while len(self._templates) > self._kept:
                self._templates.popitem(last=False)
            return self._templates[prefix]

    def _lines(self, key: str) -> list[bytes]:
        # Held while reading, so that the units of one claim read their page once.
        with self._lock:
            if key not in self._pages:
                # Split at line feeds alone: JSON may hold other line separators as they are.
                self._pages[key] = self._store.get(key).rstrip(b"\n").split(b"\n")
            self._pages.move_to_end(key)
            while len(self._pages) > self._kept:
                self._pages.popitem(last=False)
            return self._pages.get(key, [])


def fetch_rows(store: Store, job: Job, first_row: int, stop_row: int) -> list[Row]:
    """Rows `first_row` up to `stop_row` of a job; raises NotFound where a page is gone."""
    return RowPages(store).rows(job, first_row, stop_row)


def _note_columns(columns: dict[str, ColumnKind | None], row: Row, number: int) -> None:
    for name, value in row.extra.items():
        if name not in columns:
            _check_column(name, number, len(columns))
        columns[name] = _widest(columns.get(name), kind_of(value))


def _check_column(name: str, number: int, known: int) -> None:
    if name in RESERVED_COLUMNS:
        raise InvalidInput(
            f"the column {name!r} has the name of one that we write",
            where=f"row {number}",
            remedy=f"rename it, to my_{name} for example",
        )
    if known >= MAX_COLUMNS:
        raise InvalidInput(
            f"the column {name!r} is one too many: the rows together have more than {MAX_COLUMNS}",
            where=f"row {number}",
            remedy="use the same columns in every row",
        )


def kind_of(value: Scalar) -> ColumnKind | None:
    """The narrowest kind of a column that holds the value; None where any does."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        # Text holds what 64 bits do not.
        return "int" if value in _INT64 else "string"
    return "float" if isinstance(value, float) else "string"


def _widest(one: ColumnKind | None, other: ColumnKind | None) -> ColumnKind | None:
    if one is None or other is None or one == other:
        return one or other
    return "float" if {one, other} == {"int", "float"} else "string"
