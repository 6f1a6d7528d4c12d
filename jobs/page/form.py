"""The form of a new job: from its fields to a request and rows, and from a picture back to it."""

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from starlette.datastructures import FormData, UploadFile

from jobs.again import request_of
from jobs.api.body import checked_source
from jobs.api.routes_submit import job_request, template_of
from jobs.catalog import Catalog
from jobs.errors import InvalidInput
from jobs.items import Item
from jobs.job import Job, JobRequest
from jobs.recipe import RowRecipe
from jobs.rows import Row
from jobs.sources.reading import SourceFormat, read_rows
from jobs.templates.template import Template

_TEXTS = ("name", "format")
_WHOLE = ("repeats", "seed", "priority", "quality")
_RECIPE_WHOLE = ("steps", "width", "height")
_RECIPE_NUMBERS = ("guidance", "eta")
_RECIPE_WORDS = ("accelerator", "sampler", "vae", "dtype")
#: Fields as a new form has them.
EMPTY: Mapping[str, str] = {
    **dict.fromkeys((*_TEXTS, *_WHOLE, "prompts"), ""),
    **dict.fromkeys((*_RECIPE_WHOLE, *_RECIPE_NUMBERS, *_RECIPE_WORDS), ""),
    "as": "lines",
    "mode": "combinatorial",
    "count": "",
    "model": "tiny",
    "repeats": "4",
    "format": "png",
}


def values_of(form: FormData) -> dict[str, str]:
    """What was filled in, to be shown again."""
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    return {**EMPTY, **texts}


def request_from(values: Mapping[str, str]) -> JobRequest:
    """The request that the fields make; raises InvalidInput or Refused naming the field."""
    styles = [
        {"name": name.removeprefix("style:"), "weight": _number(values, name)}
        for name in values
        if name.startswith("style:") and values[name].strip()
    ]
    recipe: dict[str, Any] = {name: _whole(values, name) for name in _RECIPE_WHOLE}
    recipe |= {name: _number(values, name) for name in _RECIPE_NUMBERS}
    recipe |= {name: values[name] or None for name in _RECIPE_WORDS}
    recipe |= {"model": values["model"] or "tiny", "styles": styles}
    fields: dict[str, Any] = {name: values[name].strip() or None for name in _TEXTS}
    fields |= {name: _whole(values, name) for name in _WHOLE}
    given = {name: value for name, value in fields.items() if value is not None}
    return job_request(given | {"recipe": recipe})


def rows_from(form: FormData, values: Mapping[str, str]) -> Iterable[Row] | Template:
    """The rows of the text or of the file, or the text as a template of many.

    Raises InvalidInput where both are given.
    """
    file, text = form.get("file"), values["prompts"].strip()
    if isinstance(file, UploadFile) and file.filename:
        if text:
            raise InvalidInput(
                "prompts are given twice", where="prompts", remedy="clear the text, or the file"
            )
        return read_rows(file.file, checked_source(file.filename, "file"), file.filename[-80:])
    if values["as"] == "template" and text:
        asked = {"template": text, "mode": values["mode"], "count": _whole(values, "count")}
        return template_of({name: value for name, value in asked.items() if value})
    source: SourceFormat = "jsonl" if text.startswith("{") else "text"
    return read_rows(_lines(text), source, "prompts")


def values_again(
    catalog: Catalog, job: Job, item: Item, negative: str, own: RowRecipe | None = None
) -> dict[str, str]:
    """The form that makes a picture again: its recipe, its prompt, its seed."""
    request = request_of(catalog, job.recipe)
    row: dict[str, Any] = {"prompt": item.prompt, "seed": item.seed, **(own.given if own else {})}
    if negative:
        row["negative_prompt"] = negative
    named = {"model", *_RECIPE_WHOLE, *_RECIPE_NUMBERS, *_RECIPE_WORDS}
    asked = request.model_dump(include=named)
    styles = {f"style:{one.name}": f"{one.weight}" for one in request.styles}
    return {
        **EMPTY,
        **{name: f"{value}" for name, value in asked.items() if value is not None},
        **styles,
        "prompts": json.dumps(row, ensure_ascii=False),
        "repeats": "1",
        "format": job.format,
        "quality": "" if job.format == "png" else str(job.quality),
    }


def _lines(text: str) -> BinaryIO:
    # At line feeds alone: a prompt may hold other separators. Blank lines are easily typed.
    kept = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    return io.BytesIO("\n".join(kept).encode("utf-8", "surrogatepass"))


def _whole(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "").strip()
    if not text:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 15:
        raise InvalidInput("this is not a whole number", where=name)
    return int(text)


def _number(values: Mapping[str, str], name: str) -> float | None:
    text = values.get(name, "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInput("this is not a number", where=name) from error
