"""The OpenAPI document, and bodies that routes read by themselves and describe there."""

import json
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from jobs.api.body import read_object
from jobs.api.problems import Problem, raise_invalid, responses
from jobs.job import JobRequest
from jobs.recipe import Frozen
from jobs.templates.expansion import TemplateRequest

Body = TypeVar("Body", bound=Frozen)

#: What every route that asks for a key may answer.
_WITH_KEY = (401, 403, 429, 503)


def describe(app: FastAPI) -> None:
    """Add to the app's OpenAPI document what FastAPI cannot know."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = made()
        _add_schemas(document)
        for path in document["paths"].values():
            for operation in path.values():
                _add_answers(operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_schemas(document: dict[str, Any]) -> None:
    """The values that routes read by themselves."""
    _, extra = models_json_schema(
        [(JobRequest, "validation"), (TemplateRequest, "validation"), (Problem, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    known = document.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in extra["$defs"].items():
        known.setdefault(name, schema)


def _add_answers(operation: dict[str, Any]) -> None:
    if "security" in operation:
        for status, entry in responses(*_WITH_KEY).items():
            operation["responses"].setdefault(str(status), entry)


def body_of(kind: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI entry of a JSON body that the route reads by itself."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    }


async def read_body(request: Request, kind: type[Body]) -> Body:
    """The body as such a value; raises what names the field that is wrong."""
    value = await read_object(request)
    try:
        return kind.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise_invalid(error, "")
