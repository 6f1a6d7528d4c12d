"""How the S3 client behaves towards a server that refuses, stumbles or cuts the connection.

The server is a stub that answers what a test tells it to: real ones stumble when they like.
"""

import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from botocore.exceptions import EndpointConnectionError

from jobs.errors import BadConfiguration, Unreachable
from jobs.s3_client import ATTEMPTS, Patience, s3_clients
from jobs.settings import Settings
from jobs.store import Store
from jobs.store_check import honours_absent
from tests.s3_servers import settings_for

RESET = "reset"
#: A refusal whose text ends in the middle.
CUT = "cut"


@dataclass
class Stub:
    """What to answer to PUTs and GETs, in this order (then 200), and what was asked."""

    port: int = 0
    answers: list[tuple[int, str] | str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def stub() -> Iterator[Stub]:
    told = Stub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            told.asked.append({name.lower(): value for name, value in self.headers.items()})
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = told.answers.pop(0) if told.answers else (200, "")
            if answer == CUT:
                self.send_response(404)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"7\r\n<Error>\r\n")
                self.close_connection = True
                return
            if isinstance(answer, str):
                # A reset rather than an orderly end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True
                self.connection.close()
                return
            status, code = answer
            body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("ETag", '"e"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A connection that a test has cut is no error."""

    with Server(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What botocore would have slept between its tries."""
    found: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", found.append)
    return found


@pytest.fixture
def store(stub: Stub) -> Iterator[Store]:
    """A store on the stub, whose own loop asks once more and does not sleep."""
    _, steady = s3_clients(settings_for(f"http://127.0.0.1:{stub.port}", "bucket"))
    patience = Patience(seconds=1.5, sleep=lambda seconds: None)
    made = Store(steady, "bucket", "stub", honours_absent=True, patience=patience)
    yield made
    made.close()


def config_of(settings: Settings) -> list[object]:
    return [client.meta.config for client in s3_clients(settings)]


def test_settings_are_those_that_were_measured() -> None:
    for config, attempts in zip(
        config_of(settings_for("http://a:9000")), (2, ATTEMPTS), strict=True
    ):
        assert config.retries == {"mode": "standard", "total_max_attempts": attempts}
        assert (config.connect_timeout, config.read_timeout, config.tcp_keepalive) == (5, 60, True)
        assert config.request_checksum_calculation == "when_required"
        assert config.response_checksum_validation == "when_required"
        assert config.s3["addressing_style"] == "path"


@pytest.mark.parametrize("endpoint", [None, "https://s3.eu-west-1.amazonaws.com"])
def test_on_aws_checksums_are_sent(endpoint: str | None) -> None:
    settings = settings_for("", "bucket").model_copy(update={"s3_endpoint": endpoint})
    for config in config_of(settings):
        assert config.request_checksum_calculation == "when_supported"


def test_elsewhere_no_checksum_is_sent_that_a_store_may_not_know(stub: Stub, store: Store) -> None:
    store.put("a", b"1")
    (headers,) = stub.asked
    assert not [name for name in headers if "checksum" in name or "trailer" in name]
    assert headers["content-length"] == "1"
    assert "aws-chunked" not in headers.get("content-encoding", "")


@pytest.mark.parametrize(
    "answers",
    [
        [(503, "SlowDown")] * 3,
        [(500, "InternalError")],
        [RESET] * 3,
        [(409, "ConditionalRequestConflict")],
        [(409, "OperationAborted")],
        [(400, "IncompleteBody")],
        [(400, "RequestTimeout")],
        [(503, "SlowDown"), RESET, (500, "InternalError")],
    ],
    ids=str,
)
def test_what_passes_is_asked_again(
    stub: Stub, store: Store, pauses: list[float], answers: list[tuple[int, str] | str]
) -> None:
    stub.answers = list(answers)
    assert store.put("a", b"1", metadata={"token": "1"}, if_absent=True).stored
    assert len(stub.asked) == len(answers) + 1


def test_a_refusal_that_is_cut_is_asked_for_again(stub: Stub, store: Store) -> None:
    """botocore reads the text of a refused GET itself, and lets urllib3's errors through."""
    stub.answers = [CUT]
    assert store.get("a") == b""
    assert len(stub.asked) == 2


def test_a_store_that_stays_away_is_given_up(stub: Stub, store: Store, pauses: list[float]) -> None:
    stub.answers = [(503, "SlowDown")] * 100
    with pytest.raises(Unreachable, match="stub"):
        store.put("a", b"1")
    assert len(stub.asked) >= ATTEMPTS
    assert max(pauses) <= 20


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("ExpiredToken", "renew"),
        ("AccessDenied", "rights"),
        ("InvalidAccessKeyId", "FEWSTEP_S3_ACCESS_KEY"),
        ("SignatureDoesNotMatch", "FEWSTEP_S3_SECRET_KEY"),
        ("RequestTimeTooSkewed", "clock"),
    ],
)
def test_a_refusal_is_final_and_says_what_to_do(
    stub: Stub, store: Store, pauses: list[float], code: str, remedy: str
) -> None:
    stub.answers = [(403, code)] * 20
    with pytest.raises(BadConfiguration, match=code) as caught:
        store.put("a", b"1")
    assert remedy in str(caught.value.remedy)
    assert len(stub.asked) == 1
    assert pauses == []


def test_trying_a_store_outlasts_its_going_away_at_the_end(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was tried is known by then; the rest of it is not worth a scheduler's life."""
    quick, steady = s3_clients(settings_for(f"http://127.0.0.1:{stub.port}", "bucket"))

    def away(**_: str) -> None:
        raise EndpointConnectionError(endpoint_url="stub")

    monkeypatch.setattr(quick, "delete_object", away)
    stub.answers = [(200, ""), (412, "PreconditionFailed")]
    assert honours_absent(quick, "bucket", "scratch/", "stub")
    for client in (quick, steady):
        client.close()
