"""The form of a new job: from its fields to a request and rows, and from a picture back to it."""

import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from starlette.datastructures import FormData, UploadFile

from jobs.again import request_of
from jobs.api.body import checked_source
from jobs.api.prompt_sources import template_of
from jobs.api.routes_submit import job_request
from jobs.catalog import Catalog
from jobs.errors import FewstepError, InvalidInput
from jobs.items import Item
from jobs.job import Job, JobRequest
from jobs.page.wishes import (
    LEAST,
    MOST,
    POLICY,
    asked_names,
    budget_from,
    filters_from,
    number,
    whole,
    wish_values,
)
from jobs.recipe import RowRecipe
from jobs.rows import Row
from jobs.sources.reading import SourceFormat, read_rows
from jobs.templates.template import Template

_TEXTS = ("name", "format", "output")
_WHOLE = ("repeats", "seed", "priority", "quality", "thumbnails", "accept", "max_tries")
_NUMBERS = ("validation",)
_BUDGET = ("max_images", "max_device_seconds", "deadline")
_RECIPE_WHOLE = ("steps", "width", "height")
_RECIPE_NUMBERS = ("guidance", "eta")
_RECIPE_WORDS = ("accelerator", "sampler", "vae", "dtype")
#: Fields as a new form has them.
EMPTY: Mapping[str, str] = {
    **dict.fromkeys((*_TEXTS, *_WHOLE, *_NUMBERS, *_BUDGET, "prompts"), ""),
    **dict.fromkeys((*_RECIPE_WHOLE, *_RECIPE_NUMBERS, *_RECIPE_WORDS), ""),
    "as": "lines",
    "mode": "combinatorial",
    "count": "",
    "model": "tiny",
    "repeats": "4",
    "format": "png",
    "output": "webdataset",
}
#: Groups of fields that an error may be about, and the field of the file.
_PLACES = ("filters", "styles", "file")
#: Words for fields in what is said of a request as a whole, which names no field.
_MEANT = {"accept": "accept", "filter": "filters", "at_least": "filters", "at_most": "filters"}


def values_of(form: FormData) -> dict[str, str]:
    """What was filled in, to be shown again."""
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    return {**EMPTY, **texts}


def request_from(values: Mapping[str, str]) -> JobRequest:
    """The request that the fields make; raises InvalidInput or Refused naming the field."""
    styles = [
        {"name": name.removeprefix("style:"), "weight": number(values, name)}
        for name in values
        if name.startswith("style:") and values[name].strip()
    ]
    recipe: dict[str, Any] = {name: whole(values, name) for name in _RECIPE_WHOLE}
    recipe |= {name: number(values, name) for name in _RECIPE_NUMBERS}
    recipe |= {name: values[name] or None for name in _RECIPE_WORDS}
    recipe |= {"model": values["model"] or "tiny", "styles": styles}
    fields: dict[str, Any] = {name: values[name].strip() or None for name in _TEXTS}
    fields |= {name: whole(values, name) for name in _WHOLE}
    fields |= {name: number(values, name) for name in _NUMBERS}
    if fields["accept"] is not None:
        # It stands in place of repeats, and a form always has a number there.
        fields["repeats"] = None
    fields |= budget_from(values)
    given = {name: value for name, value in fields.items() if value is not None}
    return job_request(given | {"recipe": recipe, "filters": filters_from(values)})


def wrong_field(error: FewstepError | None, values: Mapping[str, str]) -> str:
    """The field that an error is about, "" where it is about none: what is wrong stands there."""
    if error is None:
        return ""
    where = error.where or ""
    if where in values:
        return where
    if filter_field := _filter_field(where, error.message, values):
        return filter_field
    if where == "job":
        words = re.findall(r"[a-z_]+", error.message)
        return next((_MEANT[one] for one in words if one in _MEANT), "")
    words = re.findall(r"[a-z_]+", where.lower())
    field = next((one for one in words if one in {*EMPTY, *_PLACES}), "")
    # A file is often named as the field for texts is.
    return "file" if field == "prompts" and not values["prompts"].strip() else field


def _filter_field(where: str, message: str, values: Mapping[str, str]) -> str:
    """The field of a filter that an error counts, or names in its message."""
    names = [*asked_names(values)]
    counted = re.fullmatch(r"job\.filters\.(\d+)\.(\w+)", where)
    if counted and int(counted[1]) < len(names):
        prefix = {"at_least": LEAST, "at_most": MOST}.get(counted[2], POLICY)
        return prefix + names[int(counted[1])]
    quoted = re.findall(r"'([^']+)'", message) if where in ("filters", "job") else ()
    return next((POLICY + one for one in quoted if one in names), "")


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
        asked = {"template": text, "mode": values["mode"], "count": whole(values, "count")}
        return template_of({name: value for name, value in asked.items() if value})
    source: SourceFormat = "jsonl" if text.startswith("{") else "text"
    return read_rows(_lines(text), source, "prompts")


def values_again(
    catalog: Catalog,
    job: Job,
    item: Item,
    negative: str,
    own: RowRecipe | None = None,
    now_ms: int = 0,
) -> dict[str, str]:
    """The form that makes a picture again: its recipe, its prompt, its seed, and what its job
    asked of it. `now_ms`: a deadline before that is left out."""
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
        "output": job.output,
        "validation": str(job.validation) if job.validation else "",
        "thumbnails": "" if job.thumbnails is None else str(job.thumbnails),
        **wish_values(catalog, job, now_ms),
    }


def _lines(text: str) -> BinaryIO:
    # At line feeds alone: a prompt may hold other separators. Blank lines are easily typed.
    kept = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    return io.BytesIO("\n".join(kept).encode("utf-8", "surrogatepass"))
