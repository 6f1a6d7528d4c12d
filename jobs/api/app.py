"""The app: routes, errors, and the reader of events that lives as long as the app."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from jobs.api import routes_jobs, routes_submit, routes_system
from jobs.api.origin import OriginGuard
from jobs.api.problems import Problem, add_problem_handlers
from jobs.api.services import Services
from jobs.api.sse import EventFan
from jobs.job import JobRequest
from jobs.settings import Settings

ABOUT = """Bulk text-to-image rendering: prompts in, a training-ready dataset in S3 out.

Every error is a problem document (RFC 9457) with `code`, `detail`, `where` and `remedy`."""


def create_app(settings: Settings) -> FastAPI:
    """The API for these settings; connects to Redis and the store when first asked.

    Raises BadConfiguration for settings that cannot be right.
    """
    services = Services(settings)
    fan = EventFan(services.feed)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reader = asyncio.create_task(fan.run())
        try:
            yield
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            services.close()

    app = FastAPI(title="fewstep", version="1", description=ABOUT, lifespan=lifespan)
    app.state.services = services
    app.state.fan = fan
    for part in (routes_submit.router, routes_jobs.router, routes_system.router):
        app.include_router(part)
    app.include_router(routes_system.probes)
    add_problem_handlers(app)
    app.add_middleware(OriginGuard, api_url=settings.api_url)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Add the values that routes read by themselves to the OpenAPI document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        _, extra = models_json_schema(
            [(JobRequest, "validation"), (Problem, "serialization")],
            ref_template="#/components/schemas/{model}",
        )
        known = document.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in extra["$defs"].items():
            known.setdefault(name, schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
