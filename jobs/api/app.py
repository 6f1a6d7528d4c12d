"""The app: routes, errors, and the reader of events that lives as long as the app."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from jobs.api import (
    routes_batches,
    routes_coverage,
    routes_drop,
    routes_files,
    routes_images,
    routes_items,
    routes_jobs,
    routes_original,
    routes_retry,
    routes_stages,
    routes_submit,
    routes_system,
    routes_webhooks,
)
from jobs.api.house import House
from jobs.api.metrics import Measured
from jobs.api.openapi import describe
from jobs.api.origin import OriginGuard
from jobs.api.problems import add_problem_handlers
from jobs.api.sse import EventFan
from jobs.page.mount import add_page
from jobs.settings import Settings

ABOUT = """Bulk text-to-image rendering: prompts in, a training-ready dataset in S3 out.

Every error is a problem document (RFC 9457) with `code`, `detail`, `where` and `remedy`."""

_PARTS = (
    routes_submit,
    routes_jobs,
    routes_retry,
    routes_drop,
    routes_stages,
    routes_coverage,
    routes_items,
    routes_original,
    routes_files,
    routes_batches,
    routes_images,
    routes_webhooks,
    routes_system,
)
#: How long a message to a webhook may hold up the end.
STOP_S = 2.0


def create_app(settings: Settings) -> FastAPI:
    """The API for these settings; connects to Redis and the store when first asked.

    Raises BadConfiguration for settings that cannot be right.
    """
    house = House(settings)
    fan = EventFan(house.feed, house.metrics.note_event)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reader = asyncio.create_task(fan.run())
        stop = threading.Event()
        sender = threading.Thread(
            target=house.tell_hooks, args=(stop,), name="webhooks", daemon=True
        )
        if settings.webhooks != "off":
            sender.start()
        try:
            yield
        finally:
            stop.set()
            if sender.is_alive():
                await asyncio.to_thread(sender.join, STOP_S)
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            house.close()

    app = FastAPI(title="fewstep", version="1", description=ABOUT, lifespan=lifespan)
    app.state.house = house
    app.state.fan = fan
    for part in _PARTS:
        app.include_router(part.router)
    app.include_router(routes_system.probes)
    add_page(app)
    add_problem_handlers(app)
    if settings.keys == "off":
        # A key is never sent by a browser on its own; without keys, this is what stands there.
        app.add_middleware(OriginGuard, api_url=settings.api_url)
    app.add_middleware(Measured, metrics=house.metrics)
    describe(app)
    return app
