"""The OpenAPI document: what the routes say of themselves, and what all of them answer."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from jobs.api.problems import Problem, responses
from jobs.job import JobRequest

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
        [(JobRequest, "validation"), (Problem, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    known = document.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in extra["$defs"].items():
        known.setdefault(name, schema)


def _add_answers(operation: dict[str, Any]) -> None:
    if "security" in operation:
        for status, entry in responses(*_WITH_KEY).items():
            operation["responses"].setdefault(str(status), entry)
