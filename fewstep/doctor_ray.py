"""What the doctor asks Ray: whether its head answers, not only whether something listens."""

import socket
from collections.abc import Iterator

from fewstep.findings import Finding
from jobs.settings import Settings

TIMEOUT_S = 5.0
#: What HTTP/2, which gRPC speaks, begins with; and an empty frame of settings (RFC 9113, 3.4, 4.1).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_REMEDY = "run `fewstep up`, or correct FEWSTEP_RAY_ADDRESS"


def ray_found(settings: Settings) -> Iterator[Finding]:
    """Whether Ray's head answers; who renders is told by the queue's own checks."""
    address = settings.ray_address
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        yield Finding("ray", "warn", f"address {address!r}", "run `fewstep up`")
        return
    try:
        answer = _asked(host, int(port))
    except OSError as error:
        yield Finding("ray", "fail", f"{address} does not answer: {error}", _REMEDY)
        return
    if answer[3:4] == _SETTINGS[3:4]:
        yield Finding("ray", "ok", f"its head answers at {address}; its nodes were not asked")
    else:
        text = f"what listens at {address} does not speak as Ray's head does (gRPC)"
        yield Finding("ray", "fail", text, _REMEDY)


def _asked(host: str, port: int) -> bytes:
    """The first frame's head that a server answers: it costs nothing, and needs no token.

    A mere connection is taken by the kernel, also for a process that hangs.
    """
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
        connection.sendall(_PREFACE + _SETTINGS)
        return connection.recv(len(_SETTINGS), socket.MSG_WAITALL)
