"""Rows: the lines of a prompt source, read as a stream and checked before any work starts."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Literal

from pydantic import Field

from jobs.errors import BadText, InvalidInput, NothingToRender, TooLarge
from jobs.recipe import Frozen
from jobs.seeds import MAX_SEED

MAX_PROMPT = 8_000
MAX_LINE = 1_000_000
MAX_COLUMNS = 64
SOURCES = ("text", "jsonl")
SourceFormat = Literal["text", "jsonl"]

_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NOT_YET_PER_ROW = frozenset({"width", "height", "steps", "guidance", "model", "repeats"})

Scalar = str | int | float | bool | None


class Row(Frozen):
    """One prompt and what belongs to it; `extra` passes through to the output unchanged."""

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    extra: dict[str, Scalar] = Field(default_factory=dict)


def read_rows(lines: BinaryIO, source: SourceFormat, name: str) -> Iterator[Row]:
    """Rows of a text or JSONL stream; raises InvalidInput naming file and line.

    Memory is bounded by one line of at most `MAX_LINE` bytes. Blank lines end a text file's rows
    only at its end; elsewhere they are refused, because a row number must stay a line number.
    """
    blank = 0
    found = False
    for number, line in _lines(lines, name):
        if not line.strip():
            blank = blank or number
            continue
        if blank:
            raise NothingToRender(
                "the line is blank", where=f"{name}, line {blank}", remedy="remove it"
            )
        found = True
        where = f"{name}, line {number}"
        yield text_row(line, where) if source == "text" else _json_row(line, where)
    if not found:
        raise NothingToRender("there is no prompt in it", where=name, remedy="one prompt a line")


def read_inline(values: Iterable[str | dict[str, Any]]) -> Iterator[Row]:
    """Rows given in a request's body: each a prompt or an object as in JSONL."""
    found = False
    for number, value in enumerate(values, start=1):
        found = True
        where = f"prompts, row {number}"
        yield text_row(value, where) if isinstance(value, str) else object_row(value, where)
    if not found:
        raise NothingToRender(
            "there is no prompt in it", where="prompts", remedy="give at least one"
        )


def text_row(line: str, where: str) -> Row:
    """A row of a prompt alone."""
    prompt = _text(line.strip(), where, "prompt")
    if not prompt:
        raise NothingToRender("the prompt is blank", where=where, remedy="remove the row")
    return Row(prompt=prompt)


def object_row(value: dict[str, Any], where: str) -> Row:
    """A row of an object: `prompt`, and by choice `seed`, `negative_prompt`, own columns."""
    rest = dict(value)
    if "prompt" not in rest:
        raise InvalidInput(
            'the field "prompt" is missing',
            where=where,
            remedy=f"found: {', '.join(sorted(map(str, rest))) or 'nothing'}",
        )
    prompt = _text(rest.pop("prompt"), where, "prompt")
    if not prompt.strip():
        raise NothingToRender("the prompt is blank", where=where, remedy="remove the row")
    negative = rest.pop("negative_prompt", None)
    return Row(
        prompt=prompt,
        negative_prompt="" if negative is None else _text(negative, where, "negative_prompt"),
        seed=_seed(rest.pop("seed", None), where),
        extra=_extra(rest, where),
    )


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    number = 0
    while raw := stream.readline(MAX_LINE + 1):
        number += 1
        where = f"{name}, line {number}"
        if len(raw) > MAX_LINE:
            raise TooLarge(f"the line is longer than {MAX_LINE} bytes", where=where)
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"byte {error.start + 1} of the line is not UTF-8",
                where=where,
                remedy="save the file as UTF-8",
            ) from error


def _json_row(line: str, where: str) -> Row:
    try:
        value = json.loads(line, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except RecursionError as error:
        raise InvalidInput("the JSON is nested too deeply", where=where) from error
    except ValueError as error:
        raise InvalidInput(
            f"this is not JSON: {error}"[:200], where=where, remedy="one JSON object a line"
        ) from error
    if not isinstance(value, dict):
        raise InvalidInput("this is not a JSON object", where=where, remedy='{"prompt": "..."}')
    return object_row(value, where)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _text(value: object, where: str, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{field} is not text", where=where)
    if len(value) > MAX_PROMPT:
        raise InvalidInput(
            f"{field} has {len(value)} characters, more than {MAX_PROMPT}",
            where=where,
            remedy="shorten it; text encoders read a few dozen words",
        )
    return writable(value, where, field)


def writable(value: str, where: str, field: str) -> str:
    """`value` if files and columns can hold it."""
    if "\x00" in value:
        raise BadText(f"{field} holds a NUL character", where=where, remedy="remove it")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise BadText(
            f"{field} holds half of a surrogate pair", where=where, remedy="write whole characters"
        )
    return value


def _seed(value: object, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise InvalidInput(
            f"seed {str(value)[:40]} is not a whole number from 0 to {MAX_SEED}",
            where=where,
            remedy="leave it out to have one drawn from the job's seed",
        )
    return value


def _extra(rest: dict[str, Any], where: str) -> dict[str, Scalar]:
    if len(rest) > MAX_COLUMNS:
        raise InvalidInput(f"more than {MAX_COLUMNS} columns of your own", where=where)
    extra: dict[str, Scalar] = {}
    for key, value in rest.items():
        if not _COLUMN.fullmatch(key):
            raise InvalidInput(
                f"{key[:40]!r} is no column name",
                where=where,
                remedy="letters, digits and _, at most 64",
            )
        if key in _NOT_YET_PER_ROW:
            raise InvalidInput(
                f"{key!r} cannot be set per row", where=where, remedy="set it for the whole job"
            )
        if isinstance(value, str):
            extra[key] = _text(value, where, key)
        elif value is None or isinstance(value, bool | int | float):
            extra[key] = _storable(value, where, key)
        else:
            extra[key] = _as_json(value, where, key)
    return extra


def _as_json(value: object, where: str, key: str) -> str:
    """What is no scalar, as the text of a column."""
    try:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise InvalidInput(f"{key} holds a number that is not finite", where=where) from error
    except RecursionError as error:
        raise InvalidInput(f"{key} is nested too deeply", where=where) from error
    return writable(text, where, key)


def _storable(value: Scalar, where: str, key: str) -> Scalar:
    """`value` if a column of the output can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{key} is not a finite number", where=where)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidInput(
            f"{key} is beyond 64 bits", where=where, remedy="write the number as text"
        )
    return value
