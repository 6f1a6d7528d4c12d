"""A guard for addresses that users give us to call: only public ones, looked up once."""

import ipaddress
import math
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

import httpcore

from jobs.errors import InvalidInput

#: `https`: public addresses alone; `loopback`: this machine too, without TLS (tests, trials).
Reach = Literal["off", "https", "loopback"]
_REMEDY = "give https://host/path of a server that the whole internet reaches"


class ForbiddenAddress(InvalidInput):
    """An address that we do not call."""

    code = "url_forbidden"


def checked_url(url: str, reach: Reach) -> str:
    """`url` if it may be called as far as its text tells; raises ForbiddenAddress.

    Where its name leads is checked when it is called: that may change at any time.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ForbiddenAddress("this is no address", where="url", remedy=_REMEDY) from error
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= 2_000
    if not plain or not host or port == 0 or parts.username is not None or parts.fragment:
        raise ForbiddenAddress("this is no address to call", where="url", remedy=_REMEDY)
    local = reach == "loopback" and host in ("127.0.0.1", "localhost")
    if parts.scheme != "https" and not (local and parts.scheme == "http"):
        raise ForbiddenAddress("only https is called", where="url", remedy=_REMEDY)
    literal = _literal(host)
    if literal is not None:
        _check([literal], reach)
    return url


def resolve(host: str, port: int, reach: Reach) -> str:
    """The address to connect to; raises ForbiddenAddress where any that the name has is not
    public, and OSError where it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    _check(addresses, reach)
    return addresses[0]


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to what was checked, and to nothing else: the name is looked up once.

    `end`: on the clock of `time.monotonic`, when whatever is under way is over.
    """

    def __init__(self, reach: Reach, end: float = math.inf) -> None:
        self._reach, self._end = reach, end
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the host's checked address; TLS goes on to ask for the host's name."""
        try:
            address = resolve(host, port, self._reach)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host}: {error}") from error
        left = _left(self._end, timeout, httpcore.ConnectTimeout)
        made = self._inner.connect_tcp(address, port, left, local_address, socket_options)
        return _EndingStream(made, self._end)

    def connect_unix_socket(self, *arguments: Any, **more: Any) -> httpcore.NetworkStream:
        """Never."""
        raise httpcore.ConnectError("no socket of this machine is called")


class _EndingStream(httpcore.NetworkStream):
    """A connection with an end for all of it: a time-out alone holds for each byte that drips."""

    def __init__(self, inner: httpcore.NetworkStream, end: float) -> None:
        self._inner, self._end = inner, end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What came; raises ReadTimeout."""
        return self._inner.read(max_bytes, _left(self._end, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it; raises WriteTimeout."""
        self._inner.write(buffer, _left(self._end, timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """The same connection behind TLS, with the same end; raises ConnectTimeout."""
        left = _left(self._end, timeout, httpcore.ConnectTimeout)
        return _EndingStream(self._inner.start_tls(ssl_context, server_hostname, left), self._end)

    def get_extra_info(self, info: str) -> Any:
        """What is known of the connection."""
        return self._inner.get_extra_info(info)


def _left(end: float, timeout: float | None, late: type[Exception]) -> float | None:
    """Seconds for one step of an attempt; raises `late` where none are left."""
    left = end - time.monotonic()
    if left <= 0:
        raise late("the whole of it took too long")
    return timeout if left == math.inf else left if timeout is None else min(left, timeout)


def _literal(host: str) -> str | None:
    """The address that a host without a name is, in any of its spellings; None: it is a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        # 2130706433, 0x7f.1 and 127.1 are 127.0.0.1 to a resolver.
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _check(addresses: list[str], reach: Reach) -> None:
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if reach == "loopback" and mapped.is_loopback:
            continue
        tunnels = isinstance(mapped, ipaddress.IPv6Address) and (
            mapped.sixtofour is not None or mapped.teredo is not None or mapped in _NAT64
        )
        if not mapped.is_global or mapped.is_multicast or tunnels:
            raise ForbiddenAddress(
                "the address leads into a private network", where="url", remedy=_REMEDY
            )


#: Addresses that stand for IPv4 ones behind a translator (RFC 6052).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
