"""Rows: what a prompt source becomes, each checked before any work starts."""

import json
import math
import re
from typing import Any, get_args

from pydantic import Field

from jobs.errors import BadText, InvalidInput, NothingToRender
from jobs.recipe import Frozen, RowRecipe, Sampler
from jobs.seeds import MAX_SEED

MAX_PROMPT = 8_000
MAX_LINE = 1_000_000
MAX_COLUMNS = 64
#: Of a single row; a job's own `repeats` come on top.
MAX_REPEATS = 10_000

_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
#: Fields of a recipe that need another engine.
_OF_ENGINE = frozenset({"model", "accelerator", "styles", "dtype"})
_WHOLE_FIELDS = ("width", "height", "steps")

Scalar = str | int | float | bool | None


class Row(Frozen):
    """One prompt and what belongs to it; `extra` passes through to the output unchanged."""

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    #: As how many rows it counts; 1 once it is spooled.
    repeats: int = 1
    #: What of the job's recipe is another for this row; None: nothing.
    recipe: RowRecipe | None = None
    extra: dict[str, Scalar] = Field(default_factory=dict)


def text_row(line: str, where: str) -> Row:
    """A row of a prompt alone."""
    prompt = _text(line.strip(), where, "prompt")
    if not prompt:
        raise NothingToRender("the prompt is blank", where=where, remedy="remove the row")
    return Row(prompt=prompt)


def object_row(value: dict[str, Any], where: str) -> Row:
    """A row of an object: `prompt`, by choice others of ours, and own columns."""
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
        repeats=_repeats(rest.pop("repeats", None), where),
        recipe=_recipe(rest, where),
        extra=_extra(rest, where),
    )


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


def _repeats(value: object, where: str) -> int:
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_REPEATS:
        raise InvalidInput(
            f"repeats {str(value)[:40]} is not a whole number from 1 to {MAX_REPEATS}", where=where
        )
    return value


def _recipe(rest: dict[str, Any], where: str) -> RowRecipe | None:
    """The row's own part of the recipe, taken out of `rest`."""
    given = {name: rest.pop(name, None) for name in RowRecipe.model_fields}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    for name, value in given.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if name in _WHOLE_FIELDS and not whole:
            raise _no_setting(name, value, "a whole number", where)
        if name == "guidance" and not (whole or isinstance(value, float)):
            raise _no_setting(name, value, "a number", where)
        if name == "sampler" and value not in get_args(Sampler):
            raise _no_setting(name, value, f"one of {', '.join(get_args(Sampler))}", where)
    if not -1e6 < given.get("guidance", 0) < 1e6:
        raise _no_setting(
            "guidance", given["guidance"], "a number of a size that it may have", where
        )
    return RowRecipe(**given)


def _no_setting(name: str, value: object, wanted: str, where: str) -> InvalidInput:
    return InvalidInput(
        f"{name} {str(value)[:40]!r} is not {wanted}",
        where=where,
        remedy=f"leave the cell empty for the job's own, or the column out: --drop {name}",
    )


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
        if key in _OF_ENGINE:
            raise InvalidInput(
                f"{key!r} cannot be set per row: it is another engine",
                where=where,
                remedy=f"submit a job for each, or leave the column out: --drop {key}",
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
    if len(text) > MAX_PROMPT:
        raise InvalidInput(
            f"{key} is longer than {MAX_PROMPT} letters as JSON",
            where=where,
            remedy="leave it out, or keep it in a file of your own beside a key",
        )
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
