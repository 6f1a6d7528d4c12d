"""All parts of the page on the app that serves the API."""

from fastapi import FastAPI

from jobs.page import (
    routes_change,
    routes_cluster,
    routes_coverage,
    routes_grid,
    routes_job,
    routes_jobs,
    routes_new,
    routes_pictures,
    routes_sign_in,
)
from jobs.page.rendering import STATIC, Static
from jobs.page.small_forms import SmallForms

PARTS = (
    routes_sign_in,
    routes_jobs,
    routes_new,
    routes_cluster,
    routes_pictures,
    routes_grid,
    routes_coverage,
    routes_change,
    routes_job,
)


def add_page(app: FastAPI) -> None:
    """Add the page's routes and files; they are no part of the OpenAPI document."""
    app.add_middleware(SmallForms)
    for part in PARTS:
        app.include_router(part.router, include_in_schema=False)
    app.mount("/static", Static(directory=STATIC), name="static")
