"""Reading templates and lists from files on this machine: TOML, and a value a line."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.errors import InvalidInput, TooLarge
from jobs.templates.expansion import TemplateRequest

#: Bytes of a template's file, or of a list's.
MAX_FILE = 16_000_000


def read_template(path: Path) -> TemplateRequest:
    """The template of a TOML file, whose lists may be files beside it; raises InvalidInput."""
    try:
        fields = tomllib.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"this is not TOML: {error}"[:200],
            where=str(path),
            remedy="a line template = '...', and a table [lists] with name = ['value', ...]",
        ) from error
    lists = fields.get("lists", {})
    if isinstance(lists, dict):
        fields["lists"] = {name: _values(value, path) for name, value in lists.items()}
    try:
        return TemplateRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            first["msg"], where=f"{path.name}, {field}", remedy="see docs/datasets.md"
        ) from error


def read_list(path: Path) -> tuple[str, ...]:
    """The values of a list's file, one a line; blank lines and those that begin with # are none."""
    lines = (line.strip() for line in _text(path).split("\n"))
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise InvalidInput("the list is empty", where=str(path), remedy="write a value a line")
    return found


def _values(value: Any, path: Path) -> Any:
    """A list's values where a file is named; anything else is for the request to judge."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    beside = path.parent.resolve()
    place = (beside / value).resolve()
    if not place.is_relative_to(beside) or not place.is_file():
        raise InvalidInput(
            f"{value[:200]!r} is no file beside the template",
            where=str(path),
            remedy="name a text file in the same folder, or give the values themselves",
        )
    return read_list(place)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InvalidInput(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    if len(data) > MAX_FILE:
        raise TooLarge(f"the file is larger than {MAX_FILE} bytes", where=str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"byte {error.start + 1} is not UTF-8", where=str(path), remedy="save it as UTF-8"
        ) from error
