"""A TCP proxy that breaks connections on purpose, as a bad network does."""

import asyncio
import random
import re
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
_CHUNK = 1 << 16
_REFUSAL = (
    "HTTP/1.1 {status} x\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    "Content-Length: {size}\r\n\r\n{body}"
)


@dataclass
class DropReply:
    """Once `asked` was seen going up, the next reply that begins with `reply` never arrives.

    The request has been carried out by then; the connection is reset instead of answered.
    """

    asked: bytes
    reply: bytes = b""
    times: int = 1


@dataclass
class Cut:
    """After `asked` and `after` more bytes going up, the connection is reset in the middle."""

    asked: bytes
    after: int
    times: int = 1


@dataclass
class Refuse:
    """Every request is answered by the proxy itself, as a store that is busy or says no."""

    status: int
    code: str

    @property
    def reply(self) -> bytes:
        """The HTTP answer, in the form that S3 clients read."""
        body = f"<Error><Code>{self.code}</Code><Message>by the proxy</Message></Error>"
        return _REFUSAL.format(status=self.status, size=len(body), body=body).encode()


@dataclass(eq=False)
class Proxy:
    """One listening port before one server. Its faults are set from any thread, at any time.

    `hold`: a black hole, as a network is one: nothing passes, nothing is refused, and what was
    sent meanwhile arrives when the network is back, also from clients that gave up long ago.
    """

    target: int
    port: int = 0
    hold: bool = False
    away: bool = False
    delay_s: float = 0.0
    #: Bytes a second, each way and connection; 0: as fast as it goes.
    rate: int = 0
    #: Share of chunks that had to be sent again, as a lossy network shows itself to TCP's users.
    loss: float = 0.0
    drop: DropReply | None = None
    cut: Cut | None = None
    refuse: Refuse | None = None
    #: Times that drop, cut or refuse struck.
    hits: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _server: asyncio.Server | None = None

    def heal(self) -> None:
        """Let everything pass again."""
        self.hold = self.away = False
        self.delay_s = self.loss = 0.0
        self.rate = 0
        self.drop = self.cut = self.refuse = None

    def reset(self) -> None:
        """Reset every connection that is open now."""
        _on_loop(self._reset())

    async def _reset(self) -> None:
        for writer in list(self._open):
            _abort(writer)

    async def open(self) -> None:
        """Begin to listen on a free loopback port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        assert self._server is not None
        self._server.close()
        await self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, down: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await _Line(self, down, out).serve()
        except (OSError, asyncio.CancelledError):
            _abort(out)
        finally:
            self._tasks.discard(task)


@dataclass
class _Line:
    """One client's connection."""

    proxy: Proxy
    down: asyncio.StreamReader
    out: asyncio.StreamWriter
    doomed: DropReply | None = None
    sent: int = -1

    async def serve(self) -> None:
        proxy = self.proxy
        if proxy.away:
            _abort(self.out)
            return
        proxy._open.add(self.out)
        up_writer: asyncio.StreamWriter | None = None
        try:
            await self._wait_while_held()
            up, up_writer = await asyncio.open_connection("127.0.0.1", proxy.target)
            proxy._open.add(up_writer)
            await asyncio.gather(
                self._pump(self.down, up_writer, upward=True),
                self._pump(up, self.out, upward=False),
            )
        except OSError:
            # The server is away: its client hears that, not silence.
            _abort(self.out)
        finally:
            for writer in (self.out, up_writer):
                if writer is not None:
                    proxy._open.discard(writer)
                    writer.close()

    async def _wait_while_held(self) -> None:
        while self.proxy.hold:
            await asyncio.sleep(0.01)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool
    ) -> None:
        while data := await reader.read(_CHUNK):
            await self._wait_while_held()
            await self._slow_down(len(data))
            if upward and await self._refused(reader):
                return
            data = self._going_up(data) if upward else self._coming_down(data)
            writer.write(data)
            await writer.drain()
            if upward and self.sent == 0:
                self._strike()
                raise ConnectionResetError
        with suppress(OSError):
            writer.write_eof()

    async def _slow_down(self, size: int) -> None:
        proxy = self.proxy
        pause = proxy.delay_s + (size / proxy.rate if proxy.rate else 0.0)
        again = 0.2
        while random.random() < proxy.loss:
            # TCP sends again after 200 ms, and waits twice as long each further time.
            pause, again = pause + again, 2 * again
        if pause:
            await asyncio.sleep(pause)

    async def _refused(self, reader: asyncio.StreamReader) -> bool:
        if self.proxy.refuse is None:
            return False
        self.proxy.hits += 1
        self.out.write(self.proxy.refuse.reply)
        await self.out.drain()
        # Closing at once would reset the client before it has read the answer.
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while await reader.read(_CHUNK):
                    pass
        raise ConnectionResetError

    def _going_up(self, data: bytes) -> bytes:
        drop, cut = self.proxy.drop, self.proxy.cut
        if drop and drop.times > 0 and re.search(drop.asked, data):
            drop.times -= 1
            self.doomed = drop
        if cut and cut.times > 0 and self.sent < 0 and re.search(cut.asked, data):
            cut.times -= 1
            self.sent = cut.after
        if self.sent >= 0:
            data = data[: self.sent]
            self.sent -= len(data)
        return data

    def _coming_down(self, data: bytes) -> bytes:
        if self.doomed and data.startswith(self.doomed.reply):
            self._strike()
            raise ConnectionResetError
        return data

    def _strike(self) -> None:
        self.proxy.hits += 1
        for writer in (self.out,):
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Reset, not close: the peer gets RST."""
    raw = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


_loop: asyncio.AbstractEventLoop | None = None


def _on_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on the thread that carries every proxy of this process."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        threading.Thread(target=_loop.run_forever, name="proxies", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(coroutine, _loop).result(10)


def open_proxy(target: int) -> Proxy:
    """A proxy that listens before the server on port `target`."""
    proxy = Proxy(target)
    _on_loop(proxy.open())
    return proxy


def close_proxy(proxy: Proxy) -> None:
    """End a proxy and its connections."""
    _on_loop(proxy.close())
