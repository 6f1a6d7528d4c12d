"""Records: what stands in a prompt file, each with its place, before anybody calls it a row."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from jobs.errors import InvalidInput, NothingToRender, TooLarge
from jobs.rows import MAX_LINE

_QUOTES = "quote cells that hold a quote, and double the quote"
#: How what Python's reader says of a file begins -> what is wrong with it, and what to do.
_WORDS = {
    "unexpected end": ("a quote in this row never ends", _QUOTES),
    "new-line chara": (
        "a line ends in CR alone",
        "save the file with line ends of LF, or of CR and LF",
    ),
}


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt, an object with one in it, or why it is neither."""

    where: str
    value: str | dict[str, Any] | InvalidInput
    #: Whether its values are text alone, numbers too.
    texts: bool = False


def text_records(stream: BinaryIO, name: str) -> Iterator[Record]:
    """A prompt a line. Blank lines may stand at the end alone: a row number is a line number."""
    return _filled(_lines(stream, name))


def jsonl_records(stream: BinaryIO, name: str) -> Iterator[Record]:
    """An object a line."""
    for record in _filled(_lines(stream, name)):
        value = record.value
        yield Record(
            record.where, _object(value, record.where) if isinstance(value, str) else value
        )


def csv_records(stream: BinaryIO, name: str, delimiter: str = ",") -> Iterator[Record]:
    """An object a row, by the names in the first one (RFC 4180); empty cells are left out.

    Raises InvalidInput where what follows cannot be told apart: a quote that never ends, a header
    that names a column twice or not at all.
    """
    lines = _Counted(stream, name)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            where = f"{name}, line {lines.first}"
            lines.begin()
            if not header:
                header = _header(cells, where)
            elif cells:
                yield Record(where, _cells(header, cells, where), texts=True)
    except csv.Error as error:
        why, remedy = _WORDS.get(str(error)[:14], (str(error), _QUOTES))
        raise InvalidInput(
            f"this is not CSV: {why}", where=f"{name}, line {lines.first}", remedy=remedy
        ) from error


class _Counted:
    """Lines of a CSV file as text, no more of them in one row than a line may be long."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._number = 0
        self._bytes = 0
        #: The line in which the row that is read now began.
        self.first = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_LINE + 1)
        if not raw:
            raise StopIteration
        self._number += 1
        self._bytes += len(raw)
        if self._bytes > MAX_LINE:
            raise TooLarge(
                f"the row is longer than {MAX_LINE} bytes",
                where=f"{self._name}, line {self.first}",
                remedy="look for a quote that never ends",
            )
        if self._number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        # What is no UTF-8 is found again in its cell, so that the row is named, not the file.
        return raw.decode("utf-8", "surrogateescape")

    def begin(self) -> None:
        """The next line begins a row."""
        self.first, self._bytes = self._number + 1, 0


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not all(names) or len(set(names)) != len(names):
        raise InvalidInput(
            "the header names a column twice, or one has no name",
            where=where,
            remedy="the first row names the columns, prompt among them",
        )
    return names


def _cells(header: list[str], cells: list[str], where: str) -> dict[str, Any] | InvalidInput:
    if len(cells) != len(header):
        return InvalidInput(
            f"the row has {len(cells)} cells, the header {len(header)}",
            where=where,
            remedy="quote cells that hold the delimiter",
        )
    if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
        return InvalidInput("the row is not UTF-8", where=where, remedy="save the file as UTF-8")
    return {name: cell for name, cell in zip(header, cells, strict=True) if cell}


def _lines(stream: BinaryIO, name: str) -> Iterator[Record]:
    number = 0
    while raw := stream.readline(MAX_LINE + 1):
        number += 1
        where = f"{name}, line {number}"
        if len(raw) > MAX_LINE:
            yield Record(where, TooLarge(f"the line is longer than {MAX_LINE} bytes", where=where))
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_LINE + 1)
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        yield Record(where, _decoded(raw, where))


def _decoded(raw: bytes, where: str) -> str | InvalidInput:
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return InvalidInput(
            f"byte {error.start + 1} of the line is not UTF-8",
            where=where,
            remedy="save the file as UTF-8",
        )


def _filled(records: Iterator[Record]) -> Iterator[Record]:
    """The records without the blank lines at the end; one before that is named."""
    blank: Record | None = None
    for record in records:
        if isinstance(record.value, str) and not record.value.strip():
            blank = blank or record
            continue
        if blank is not None:
            wrong = NothingToRender("the line is blank", where=blank.where, remedy="remove it")
            yield Record(blank.where, wrong)
            blank = None
        yield record


def _object(line: str, where: str) -> dict[str, Any] | InvalidInput:
    try:
        value = json.loads(line, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except RecursionError:
        return InvalidInput("the JSON is nested too deeply", where=where)
    except ValueError as error:
        return InvalidInput(
            f"this is not JSON: {error}"[:200], where=where, remedy="one JSON object a line"
        )
    if not isinstance(value, dict):
        return InvalidInput("this is not a JSON object", where=where, remedy='{"prompt": "..."}')
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
