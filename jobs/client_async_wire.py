"""The wire of the client for asyncio: as `Wire` in `client_wire`, without blocking."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from jobs.client_calls import Answer, Call, Pages
from jobs.client_wire import (
    RETRY_WAITS_S,
    STREAM_TIMEOUT,
    EventReader,
    Tries,
    object_of,
    raise_problem,
    scattered,
    settings_of,
    unreachable,
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
        """The JSON object that a call is answered with; repeated as `Wire.reply_to` does."""
        tries = Tries(self.url)
        while True:
            try:
                reply = await self._http.request(call.method, call.path, **call.arguments())
            except httpx.TransportError as error:
                await asyncio.sleep(tries.wait_after(error))
                continue
            wait = tries.wait_for(reply)
            if wait is None:
                return object_of(reply)
            await asyncio.sleep(wait)

    async def pages(self, pages: Pages[Answer]) -> AsyncIterator[Answer]:
        """Everything in all pages, each asked for when it is needed."""
        more: Pages[Answer] | None = pages
        while more is not None:
            reply = await self.reply_to(more.call)
            for one in more.call.read(reply):
                yield one
            more = more.after(reply)

    async def read_bytes(self, path: str) -> bytes:
        """What lies at a path, as it is."""
        reply = await self._http.get(path)
        if not reply.is_success:
            raise_problem(reply)
        return reply.content

    async def events(self, job_id: str, after: str | None) -> AsyncIterator[dict[str, Any]]:
        """Events of a job until `end`, over as many streams as it takes.

        Raises Unreachable when three streams in a row bring nothing.
        """
        failures = 0
        while True:
            cut: httpx.TransportError | None = None
            try:
                async for event in self._stream(job_id, after):
                    failures = 0
                    after = event["id"] or after
                    if event["type"] == "end":
                        return
                    yield event
            except httpx.TransportError as error:
                cut = error
            failures += 1
            if failures > len(RETRY_WAITS_S):
                raise unreachable(self.url, cut) from cut
            await asyncio.sleep(scattered(RETRY_WAITS_S[failures - 1]))

    async def _stream(self, job_id: str, after: str | None) -> AsyncIterator[dict[str, Any]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        path = f"/v1/jobs/{job_id}/events"
        async with self._http.stream("GET", path, headers=headers, timeout=STREAM_TIMEOUT) as reply:
            if reply.status_code != 200:
                await reply.aread()
                raise_problem(reply)
            reader = EventReader()
            async for line in reply.aiter_lines():
                event = reader.take(line)
                if event is not None:
                    yield event
