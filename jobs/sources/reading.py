"""Rows from prompt files: which kind a file is, its columns by our names, and what is refused."""

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import PurePath
from typing import Any, BinaryIO, Literal, cast

from pydantic import Field

from jobs.errors import InvalidInput, NothingToRender, TooLarge
from jobs.recipe import Frozen
from jobs.rows import Row, object_row, text_row
from jobs.sources.records import Record, csv_records, jsonl_records, text_records
from jobs.sources.tables import table_records

SourceFormat = Literal["text", "jsonl", "csv", "tsv", "parquet", "arrow", "tar"]
SUFFIXES: dict[str, SourceFormat] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".tar": "tar",
}
#: Bad rows that a job may leave out.
MAX_REJECTED = 10_000
#: How a client that reads files itself says where an object stood, and what is wrong with it.
WHERE, ERROR = "@where", "@error"
_EXCERPT = 500
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}\.[0-9]{1,20}")
#: Our fields that are numbers.
_NUMBERS = ("seed", "repeats", "width", "height", "steps", "guidance")


class Reading(Frozen):
    """What a user says of a prompt file."""

    #: Our field, or a new name -> the file's column: {"prompt": "caption"}.
    columns: dict[str, str] = Field(default_factory=dict, max_length=64)
    #: The file's columns that are not read.
    drop: tuple[str, ...] = Field(default=(), max_length=1_000, strict=False)
    #: What becomes of a row that cannot be rendered: the whole job is refused, or it is left out.
    bad_rows: Literal["refuse", "quarantine"] = "refuse"


class Rejected:
    """Rows that were left out, each with its place and what is wrong with it."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def add(self, record: Record, error: InvalidInput) -> None:
        """Note one; raises TooLarge where there are too many."""
        if len(self.lines) >= MAX_REJECTED:
            raise TooLarge(
                f"more than {MAX_REJECTED} rows cannot be rendered",
                where=record.where,
                remedy="the columns may have other names: say which is the prompt",
            )
        value = "" if isinstance(record.value, InvalidInput) else record.value
        told = {
            "where": error.where or record.where,
            "error": error.message,
            "row": (value if isinstance(value, str) else json.dumps(value))[:_EXCERPT],
        }
        self.lines.append(json.dumps(told).encode() + b"\n")


class SourceRows(Iterable[Row]):
    """The rows of records, in order; those that are left out are in `rejected` afterwards."""

    def __init__(self, records: Iterable[Record], name: str, reading: Reading) -> None:
        self._records, self._name, self._reading = records, name, reading
        self.rejected = Rejected()
        #: Raises InvalidInput for a row (and its place) that cannot be rendered all the same.
        self.check: Callable[[Row, str], None] = lambda row, where: None

    def __iter__(self) -> Iterator[Row]:
        # A row that is refused ends the reading at once, with the process that may read for it:
        # it would live as long as the error's traceback.
        with closing(_generated(self._records)) as records:
            yield from self._rows(records)

    def _rows(self, records: Iterable[Record]) -> Iterator[Row]:
        found = False
        for record in records:
            try:
                row = _row(record, self._reading, self.check)
            except InvalidInput as error:
                if self._reading.bad_rows == "refuse":
                    raise
                self.rejected.add(record, error)
                continue
            found = True
            yield row
        if not found:
            raise NothingToRender(
                "there is no prompt in it", where=self._name, remedy="give at least one, one a line"
            )


def _generated(records: Iterable[Record]) -> Generator[Record]:
    yield from records


def read_rows(
    file: BinaryIO, source: SourceFormat, name: str, reading: Reading | None = None
) -> SourceRows:
    """Rows of a prompt file as a stream; iterating raises InvalidInput naming file and line.

    Memory is bounded by one line of at most `MAX_LINE` bytes; a table, an archive is read by a
    process with a bound of its own, so its file must lie on disk.
    """
    reading = reading or Reading()
    return SourceRows(read_records(file, source, name, reading), name, reading)


def read_records(
    file: BinaryIO, source: SourceFormat, name: str, reading: Reading
) -> Iterator[Record]:
    """The records of a prompt file, as they stand there."""
    streams: dict[str, Callable[[BinaryIO, str], Iterator[Record]]] = {
        "text": text_records,
        "jsonl": jsonl_records,
        "csv": csv_records,
        "tsv": lambda stream, name: csv_records(stream, name, "\t"),
    }
    if source in streams:
        return streams[source](file, name)
    return table_records(file, cast(Any, source), name, reading.drop)


def read_inline(
    values: Iterable[str | dict[str, Any]], reading: Reading | None = None
) -> SourceRows:
    """Rows given in a request's body: each a prompt or an object as in JSONL."""
    records = (
        Record(f"prompts, row {number}", value) for number, value in enumerate(values, start=1)
    )
    return SourceRows(records, "prompts", reading or Reading())


def format_of(name: str) -> SourceFormat | None:
    """What kind of prompt file it is, by its name; None for another one."""
    return SUFFIXES.get(PurePath(name).suffix.lower())


def _row(record: Record, reading: Reading, check: Callable[[Row, str], None]) -> Row:
    value, where = record.value, record.where
    if isinstance(value, InvalidInput):
        raise value
    if isinstance(value, str):
        return text_row(value, where)
    if record.texts:
        value = numbered(value, reading)
    where = _told_place(value, where)
    row = object_row(_renamed(value, reading, where), where)
    check(row, where)
    return row


def numbered(value: dict[str, Any], reading: Reading) -> dict[str, Any]:
    """The object with numbers in text, as in CSV, as numbers where we want such."""
    theirs = {reading.columns.get(name, name) for name in _NUMBERS}
    return {name: _number(one) if name in theirs else one for name, one in value.items()}


def _number(text: str) -> str | int | float:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _told_place(value: dict[str, Any], where: str) -> str:
    """The place that the record itself names; raises what it says is wrong."""
    if WHERE in value:
        told = value.pop(WHERE)
        where = told[:300] if isinstance(told, str) and told.isprintable() else where
    if ERROR in value:
        told = value[ERROR]
        if not isinstance(told, list):
            raise InvalidInput(f"{ERROR!r} is no column name", where=where)
        what, remedy = (str(one)[:300] for one in (*told, "", "")[:2])
        raise InvalidInput(what, where=where, remedy=remedy or None)
    return where


def _renamed(value: dict[str, Any], reading: Reading, where: str) -> dict[str, Any]:
    if not reading.columns and not reading.drop:
        return value
    rest = {name: one for name, one in value.items() if name not in reading.drop}
    named = {ours: rest.pop(theirs) for ours, theirs in reading.columns.items() if theirs in rest}
    if "prompt" in reading.columns and "prompt" not in named:
        raise InvalidInput(
            f"the column {reading.columns['prompt'][:40]!r} is missing, which has the prompt",
            where=where,
            remedy=f"found: {', '.join(sorted(map(str, value)))[:200] or 'nothing'}",
        )
    twin = next((name for name in named if name in rest), None)
    if twin is not None:
        raise InvalidInput(
            f"there is a column {twin!r} too", where=where, remedy=f"leave it out: --drop {twin}"
        )
    return rest | named
