"""What a body has prompts in: prompts themselves, a template, or a place in S3."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from jobs.api.body import checked_source
from jobs.api.problems import Refused, raise_invalid
from jobs.api.services import Services
from jobs.errors import InvalidInput, TooLarge
from jobs.rows import Row
from jobs.sources.reading import Reading, SourceRows, read_inline, read_rows
from jobs.sources.stored_folders import folder_records
from jobs.templates.expansion import TemplateRequest
from jobs.templates.template import Template

#: Prompts in a request's body; more come as a file.
INLINE_MAX = 10_000
#: Fields of a body that hold prompts; one of them is given.
SOURCES = ("prompts_from", "prompts", "template")
#: Field -> its schema.
SOURCE_SCHEMAS: dict[str, Any] = {
    "prompts_from": {
        "type": "object",
        "required": ["uri"],
        "additionalProperties": False,
        "description": "A file or folder/ in S3, where the operator allows",
        "properties": {
            "uri": {"type": "string", "examples": ["s3://inbox/ann/rows.jsonl"]},
            "etag": {"type": "string", "description": "409 where it is another"},
        },
    },
    "template": {"$ref": "#/components/schemas/TemplateRequest"},
    "prompts": {
        "type": "array",
        "minItems": 1,
        "maxItems": INLINE_MAX,
        "items": {"oneOf": [{"type": "string"}, {"type": "object"}]},
    },
}
#: The part of a form that is a prompt file.
FILE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "description": "A file named .txt, .jsonl, .csv, .tsv, .parquet or .tar",
}


def check_sources(body: Mapping[str, Any]) -> str:
    """The field of the body that has the prompts: `prompts` where none is given.

    Raises InvalidInput where several are.
    """
    given = [name for name in SOURCES if name in body]
    if len(given) > 1:
        raise InvalidInput(
            "prompts are given twice", where=given[0], remedy=f"send {' or '.join(given)}"
        )
    return given[0] if given else "prompts"


@contextmanager
def opened(
    services: Services, field: str, value: Any, reading: Reading
) -> Iterator[Iterable[Row] | Template]:
    """The rows that a field of a body stands for, read while the block lasts.

    Raises InvalidInput or Refused; NotFound, Conflict and Unreachable of a place in S3.
    """
    if field == "template":
        yield template_of(value)
        return
    if field == "prompts":
        yield read_inline(checked_inline(value), reading)
        return
    uri, etag = _reference(value)
    references, tenant = services.house.references, services.tenant
    if uri.endswith("/"):
        if etag is not None:
            raise InvalidInput("a folder has no etag", where="prompts_from", remedy="leave it out")
        yield SourceRows(folder_records(references, uri, tenant, reading), uri[-80:], reading)
        return
    source = checked_source(uri, "prompts_from")
    with references.opened(uri, etag, tenant) as file:
        yield read_rows(file, source, uri[-80:], reading)


def template_of(value: Any) -> Template:
    """The template of a body; raises InvalidInput or Refused."""
    fields = object_of(value, "template")
    try:
        return Template.of(TemplateRequest.model_validate_json(json.dumps(fields)))
    except ValidationError as error:
        raise_invalid(error, "template")


def checked_inline(prompts: Any) -> Iterator[str | dict[str, Any]]:
    """The prompts that a body has itself; raises InvalidInput where they are none."""
    if not isinstance(prompts, list):
        raise InvalidInput("this is not a list", where="prompts", remedy='["a red circle", ...]')
    if len(prompts) > INLINE_MAX:
        raise TooLarge(
            f"{len(prompts)} prompts are more than {INLINE_MAX} in one body",
            where="prompts",
            remedy="use a prompt file: a multipart form with a part prompts",
        )
    return _checked(prompts)


def _reference(place: Any) -> tuple[str, str | None]:
    """URI and etag of a prompt file that lies in S3."""
    fields = object_of(place, "prompts_from")
    check_fields(fields, {"uri", "etag"}, "prompts_from")
    uri, etag = fields.get("uri"), fields.get("etag")
    if not isinstance(uri, str) or not (etag is None or isinstance(etag, str)):
        raise InvalidInput(
            "this is no reference to a file",
            where="prompts_from",
            remedy='{"uri": "s3://bucket/key.jsonl"}, and "etag" by choice',
        )
    return uri, etag


def object_of(value: Any, where: str) -> dict[str, Any]:
    """`value` if it is a JSON object; raises InvalidInput otherwise."""
    if not isinstance(value, dict):
        raise InvalidInput("this is not a JSON object", where=where)
    return value


def check_fields(fields: dict[str, Any], known: set[str], where: str) -> None:
    """Refuse fields that are not known."""
    unknown = sorted(set(fields) - known)
    if unknown:
        raise Refused(
            422,
            "unknown_field",
            f"there is no field {unknown[0][:40]!r}",
            where=where,
            remedy=f"known: {', '.join(sorted(known))}",
        )


def _checked(prompts: list[Any]) -> Iterator[str | dict[str, Any]]:
    for number, prompt in enumerate(prompts, start=1):
        if not isinstance(prompt, str | dict):
            raise InvalidInput(
                "a prompt is text, or an object with text in it",
                where=f"prompts, row {number}",
                remedy='{"prompt": "..."}',
            )
        yield prompt
