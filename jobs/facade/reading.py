"""From OpenAI's bodies to our jobs: one image request, or the lines of a batch by recipe."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, ValidationError

from jobs.catalog import Catalog
from jobs.errors import InvalidInput
from jobs.facade.values import MAX_LINES, MAX_RECIPES, BatchFault, ImageBody
from jobs.job import JobRequest
from jobs.recipe import Frozen, RecipeRequest
from jobs.rows import MAX_LINE, Row, object_row

#: Faults told of one file.
FAULTS_TOLD = 100
#: The column in which a job carries a line's name.
NAME_COLUMN = "custom_id"


class Line(Frozen):
    """One line of a batch's input."""

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: Literal["/v1/images/generations"]
    body: ImageBody


@dataclass(frozen=True)
class Group:
    """Lines that one job makes: the same recipe, format and number of pictures."""

    request: JobRequest
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Read:
    """A batch's input: its groups in the order of their first lines, or what is wrong with it."""

    groups: list[Group]
    lines: int
    faults: list[BatchFault]


def job_request(body: ImageBody, catalog: Catalog, *, priority: int = 4) -> JobRequest:
    """The job that makes these pictures, checked; raises InvalidInput naming the field."""
    width, height = _size(body.size)
    recipe = RecipeRequest(
        model=body.model,
        steps=body.num_inference_steps,
        guidance=body.guidance_scale,
        width=width,
        height=height,
    )
    try:
        catalog.resolve(recipe)
    except InvalidInput as error:
        name = _THEIR_NAMES.get(error.where or "", error.where)
        raise InvalidInput(error.message, where=name, remedy=error.remedy) from error
    return JobRequest(
        recipe=recipe,
        name="OpenAI images",
        repeats=body.n,
        format=body.output_format,
        quality=95 if body.output_format == "png" else body.output_compression,
        priority=priority,
    )


def row_of(body: ImageBody, **columns: str) -> Row:
    """The row of an image request; raises InvalidInput for text that cannot be rendered."""
    fields: dict[str, Any] = {"prompt": body.prompt, **columns}
    fields |= {
        name: value
        for name in ("negative_prompt", "seed")
        if (value := getattr(body, name)) is not None
    }
    return object_row(fields, "body")


def read_batch(lines: Iterable[bytes], catalog: Catalog) -> Read:
    """Read a whole input file; memory grows with it, and it has at most `MAX_LINES` lines."""
    reader = _Reader(catalog)
    for number, raw in enumerate(lines, start=1):
        if number > MAX_LINES:
            reader.fault("too_many_lines", f"more than {MAX_LINES} lines", None)
            break
        if raw.strip():
            reader.take(number, raw)
        if len(reader.faults) >= FAULTS_TOLD:
            break
    if not reader.names and not reader.faults:
        reader.fault("empty_file", "there is no request in it", None)
    return Read(list(reader.groups.values()), len(reader.names), reader.faults)


class _Reader:
    """Lines as they come, and what was found in them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.groups: dict[str, Group] = {}
        self.names: set[str] = set()
        self.faults: list[BatchFault] = []

    def fault(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        """Note what is wrong."""
        self.faults.append(BatchFault(code=code, message=message, line=line, param=param))

    def take(self, number: int, raw: bytes) -> None:
        """Read one line into its group."""
        try:
            line = _line(raw)
            if line.custom_id in self.names:
                message = f"custom_id {line.custom_id[:80]!r} is used twice"
                self.fault("duplicate_custom_id", message, number, "custom_id")
                return
            if line.body.response_format != "url":
                raise InvalidInput("batches answer with urls", where="body.response_format")
            self._add(line)
        except InvalidInput as error:
            remedy = f" ({error.remedy})" if error.remedy else ""
            self.fault(error.code, f"{error.message}{remedy}"[:500], number, error.where)

    def _add(self, line: Line) -> None:
        request = job_request(line.body, self._catalog)
        row = row_of(line.body, **{NAME_COLUMN: line.custom_id})
        group = self.groups.setdefault(request.model_dump_json(), Group(request))
        if len(self.groups) > MAX_RECIPES:
            raise InvalidInput(
                f"more than {MAX_RECIPES} different models, sizes and settings in one batch",
                remedy="send several batches",
            )
        group.rows.append(row)
        self.names.add(line.custom_id)


#: Our fields -> those that their client sent.
_THEIR_NAMES = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "width": "size",
    "height": "size",
}


def _line(raw: bytes) -> Line:
    if len(raw) > MAX_LINE:
        raise InvalidInput(f"the line is longer than {MAX_LINE} bytes")
    try:
        # Through pairs, because a field given twice is a mistake that JSON readers hide.
        value = json.loads(raw, object_pairs_hook=_no_twins)
        return Line.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field_name = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        message = f"there is no field {field_name[:80]!r}" if unknown else str(first["msg"])
        raise InvalidInput(message, where=field_name or None) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"this is not JSON: {error}"[:200]) from error


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _size(size: str | None) -> tuple[int | None, int | None]:
    if size is None or size == "auto":
        return None, None
    width, _, height = size.partition("x")
    return int(width), int(height)


def lines_of(data: bytes) -> Iterator[bytes]:
    """The lines of a file, without the mark that some editors put first."""
    return iter(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
