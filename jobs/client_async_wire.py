"""The wire of the client for asyncio: as `Wire` in `client_wire`, without blocking."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from jobs.client_calls import Answer, Call, Pages
from jobs.client_wire import (
    STREAM_TIMEOUT,
    EventReader,
    Tries,
    object_of,
    raise_problem,
    settings_of,
)


class AsyncWire:
    """One API's address and the connections to it."""

    def __init__(
        self, url: str, key: str, timeout_s: float, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(transport=transport, **settings_of(self.url, key, timeout_s))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, call: Call[Answer]) -> Answer:
        """The answer to a call; raises what a problem reply means."""
        return call.read(await self.reply_to(call))

    async def reply_to(self, call: Call[Any]) -> dict[str, Any]:
        """The JSON object that a call is answered with; repeated as `Wire.send` does."""
        return object_of(await self.send(call))

    async def send(self, call: Call[Any]) -> httpx.Response:
        """The reply to a call, whatever it says."""
        tries = Tries(self.url, call.twice)
        while True:
            try:
                reply = await self._http.request(call.method, call.path, **call.arguments())
            except httpx.TransportError as error:
                await asyncio.sleep(tries.wait_after(error))
                continue
            wait = tries.wait_for(reply)
            if wait is None:
                return reply
            await asyncio.sleep(wait)

    async def pages(self, pages: Pages[Answer]) -> AsyncIterator[Answer]:
        """Everything in all pages, each asked for when it is needed."""
        more: Pages[Answer] | None = pages
        while more is not None:
            reply = await self.reply_to(more.call)
            for one in more.call.read(reply):
                yield one
            more = more.after(reply)

    async def stream(self, path: str, headers: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        """Server-sent events until the server ends or cuts the stream (httpx.TransportError)."""
        async with self._http.stream("GET", path, headers=headers, timeout=STREAM_TIMEOUT) as reply:
            if reply.status_code != 200:
                await reply.aread()
                raise_problem(reply)
            reader = EventReader()
            async for line in reply.aiter_lines():
                event = reader.take(line)
                if event is not None:
                    yield event
