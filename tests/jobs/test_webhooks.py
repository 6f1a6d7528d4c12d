"""Webhooks against a real receiver: signed, repeated, dead in the end, and never into a network."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import httpx
import pytest
import redis
from standardwebhooks import Webhook, WebhookVerificationError

from jobs.events import EventFeed
from jobs.shard_queue import ShardQueue
from jobs.webhook_guard import ForbiddenAddress, GuardedBackend, checked_url, resolve
from jobs.webhook_outbox import WAITS_S, Delivery, Outbox
from jobs.webhook_sender import Sender
from jobs.webhooks import Hook, HookStore, Message
from tests.api_calls import BODY, submit
from tests.api_keys import KeyedApi
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi, serving
from tests.servers import free_port, wait_until


@dataclass
class Receiver:
    """What came, and what is answered: the statuses in turn, then 200."""

    url: str
    statuses: list[int] = field(default_factory=list)
    came: list[tuple[dict[str, str], str]] = field(default_factory=list)
    #: Comes before each answer.
    before: Callable[[], object] = lambda: None

    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.came]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            made.came.append(({k.lower(): v for k, v in self.headers.items()}, body))
            made.before()
            self.send_response(made.statuses.pop(0) if made.statuses else 200)
            self.send_header("Location", f"{made.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@dataclass
class Office:
    """A sender of the default tenant's, stepped by the test."""

    sender: Sender
    outbox: Outbox
    hooks: HookStore
    client: redis.Redis

    def hook(self, url: str, *events: str) -> Hook:
        kinds = events or ("job.started", "job.completed", "job.failed", "job.cancelled")
        return self.hooks.add("default", url, kinds, 1)  # type: ignore[arg-type]

    def all(self) -> list[Delivery]:
        return self.outbox.deliveries("default", None, 100)

    def hurry(self) -> None:
        """Let every wait be over."""
        for name in self.client.zrange(self.outbox.key("hooks:due"), 0, -1):
            self.client.zadd(self.outbox.key("hooks:due"), {name: 1})


@pytest.fixture
def office(api: RunningApi) -> Office:
    queue, hooks = ShardQueue(api.redis), HookStore(api.store, api.settings.s3_prefix)
    outbox = Outbox(api.redis)
    made = Sender(queue, EventFeed(api.redis), outbox, hooks, "loopback")
    made.step()
    return Office(made, outbox, hooks, api.redis)


def whole_job(http: httpx.Client, api: RunningApi) -> str:
    job_id = submit(http)
    render_shards(api, job_id, failed=[3])
    finish_dataset(api, job_id)
    return job_id


# ---- messages ----


def test_a_job_is_told_once_each_and_signed(
    http: httpx.Client, api: RunningApi, office: Office, receiver: Receiver
) -> None:
    hook = office.hook(receiver.url)
    job_id = whole_job(http, api)
    for _ in range(3):
        office.sender.step()

    assert sorted(receiver.kinds()) == ["job.completed", "job.started"]
    for headers, body in receiver.came:
        told = Webhook(hook.secret).verify(body, headers)
        assert told["data"]["job"] == job_id
        with pytest.raises(WebhookVerificationError):
            Webhook(hook.secret).verify(body + " ", headers)
    last = json.loads(next(body for _, body in receiver.came if "completed" in body))
    assert (last["data"]["done"], last["data"]["failed"]) == (3, 1)
    assert {one.state for one in office.all()} == {"delivered"}


def test_shards_are_told_where_they_are_wanted(
    http: httpx.Client, api: RunningApi, office: Office, receiver: Receiver
) -> None:
    office.hook(receiver.url, "shard.committed")
    whole_job(http, api)
    office.sender.step()

    units = [json.loads(body)["data"]["unit"] for _, body in receiver.came]
    assert sorted(units) == ["0", "1"]


def test_a_cancelled_job_is_told(
    http: httpx.Client, api: RunningApi, office: Office, receiver: Receiver
) -> None:
    office.hook(receiver.url)
    job_id = submit(http)
    http.post(f"/v1/jobs/{job_id}/cancel")
    api.queue.finish(job_id, "cancelled")
    office.sender.step()

    assert receiver.kinds() == ["job.cancelled"]


def test_nothing_is_lost_between_two_senders(
    http: httpx.Client, api: RunningApi, office: Office, receiver: Receiver
) -> None:
    """One collects and dies; the next one sends, and goes on behind the same cursor."""
    office.hook(receiver.url)
    whole_job(http, api)
    office.sender.collect()
    queue = ShardQueue(api.redis)
    second = Sender(queue, EventFeed(api.redis), office.outbox, office.hooks, "loopback")
    second.step()
    office.sender.step()

    assert sorted(receiver.kinds()) == ["job.completed", "job.started"]


def test_a_message_whose_reply_was_lost_is_due(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = office.hook("http://127.0.0.1:9/")
    real, lost = redis.Connection.read_response, list[object]()

    def loses_the_first(self: redis.Connection, *rest: object, **more: object) -> object:
        reply = real(self, *rest, **more)  # type: ignore[arg-type]
        if not lost:
            lost.append(reply)
            raise redis.ConnectionError("the reply was lost")
        return reply

    monkeypatch.setattr(redis.Connection, "read_response", loses_the_first)
    fresh = office.outbox.add(hook, Message(id="msg_1", kind="job.started", body="{}"))

    assert (len(lost), fresh) == (1, False), "it was sent again, and was there"
    assert [one.id for one in office.outbox.take(10)] == ["msg_1"]


def test_everything_in_redis_has_its_time(
    http: httpx.Client, api: RunningApi, office: Office, receiver: Receiver
) -> None:
    office.hook(receiver.url)
    whole_job(http, api)
    office.sender.step()

    keys = [key for key in api.redis.keys("*hooks*") if not key.endswith(":due")]
    assert len(keys) >= 4
    assert all(api.redis.ttl(key) > 0 for key in keys)
    assert not api.redis.exists(office.outbox.key("hooks:due")), "all was sent"


# ---- again, and the end of it ----


@pytest.mark.parametrize("status", [302, 404, 500, 503])
def test_what_is_not_taken_is_sent_again_under_the_same_id(
    http: httpx.Client, api: RunningApi, office: Office, receiver: Receiver, status: int
) -> None:
    office.hook(receiver.url, "job.completed")
    receiver.statuses = [status]
    whole_job(http, api)
    office.sender.step()
    (waiting,) = office.all()
    office.sender.step()
    office.hurry()
    office.sender.step()
    (done,) = office.all()

    assert (waiting.state, waiting.attempts, waiting.news) == ("waiting", 1, f"status {status}")
    assert waiting.next_ms is not None
    assert waiting.next_ms >= waiting.made_ms + WAITS_S[0] * 1000
    assert (done.state, done.attempts) == ("delivered", 2)
    first, second = (headers for headers, _ in receiver.came)
    assert first["webhook-id"] == second["webhook-id"]


def test_after_the_last_try_it_is_dead(http: httpx.Client, api: RunningApi, office: Office) -> None:
    office.hook(f"http://127.0.0.1:{free_port()}", "job.completed")
    whole_job(http, api)
    for _ in range(len(WAITS_S) + 3):
        office.sender.step()
        office.hurry()

    (dead,) = office.outbox.deliveries("default", "dead", 10)
    assert dead.attempts == len(WAITS_S) + 1
    assert "ConnectError" in dead.news
    assert dead.next_ms is None


def test_who_is_gone_is_not_asked_again(
    http: httpx.Client, api: RunningApi, office: Office, receiver: Receiver
) -> None:
    office.hook(receiver.url, "job.completed")
    receiver.statuses = [410]
    whole_job(http, api)
    office.sender.step()

    assert [(one.state, one.news) for one in office.all()] == [("dead", "status 410")]


def test_a_deleted_webhook_is_told_nothing(
    http: httpx.Client, api: RunningApi, office: Office, receiver: Receiver
) -> None:
    hook = office.hook(receiver.url)
    whole_job(http, api)
    office.sender.collect()
    office.hooks.delete("default", hook.id)
    office.sender.step()

    assert receiver.came == []
    assert {one.state for one in office.all()} == {"dead"}


def test_a_slow_webhook_holds_up_nobody_elses(office: Office, receiver: Receiver) -> None:
    with receiving() as slow:
        slow.before = lambda: wait_until(lambda: receiver.came != [], "the other one's message")
        for number, url in enumerate((slow.url, receiver.url)):
            hook = office.hook(url)
            office.outbox.add(hook, Message(id=f"msg_{number}", kind="job.started", body="{}"))
        office.sender.step()

    assert [(one.state, one.attempts) for one in office.all()] == [("delivered", 1)] * 2


def test_a_webhook_that_drips_is_given_up(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.webhook_sender.TIMEOUT_S", 0.5)
    over = threading.Event()

    class Dripping(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            with suppress(OSError):
                while not over.wait(0.05):
                    self.request.sendall(b"a")

    with socketserver.TCPServer(("127.0.0.1", 0), Dripping) as server, ThreadPoolExecutor(2) as own:
        serving = own.submit(server.handle_request)
        hook = office.hook(f"http://127.0.0.1:{server.server_address[1]}")
        office.outbox.add(hook, Message(id="msg_1", kind="job.started", body="{}"))
        stepping = own.submit(office.sender.step)
        try:
            stepping.result(30)
        finally:
            over.set()
        serving.result(30)
    (waiting,) = office.all()
    assert (waiting.state, waiting.attempts) == ("waiting", 1)
    assert waiting.news.startswith("ReadTimeout")


# ---- the guard ----

PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_no_private_address_is_called(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(ForbiddenAddress):
        checked_url(f"https://{literal}/hook", "https")

    def answers(*_: object, **__: object) -> list[object]:
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 443))
        return [public, (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

    # A name that leads to a public address and to this one: any bad one is enough.
    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with pytest.raises(ForbiddenAddress):
        resolve("rebinding.example", 443, "https")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@example.org/",
        "https://example.org:99999/",
        "https://example.org/#part",
        "https://exa mple.org/",
        "https://example.org/\r\nHost: evil",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://127.1/",
        "https://[::1/",
        "//example.org/",
        "",
        "https://exämple.org/",
    ],
)
def test_what_is_no_public_https_address_is_refused(url: str) -> None:
    with pytest.raises(ForbiddenAddress):
        checked_url(url, "https")


def test_a_public_address_is_fine() -> None:
    assert checked_url("https://example.org:8443/a?b=c", "https").startswith("https://")


def test_a_name_is_looked_up_once_and_that_address_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(receiver.url.rpartition(":")[2])
    real, asked = socket.getaddrinfo, list[str]()

    def answers(host: str, *rest: object, **more: object) -> object:
        if host == "hook.example":
            asked.append(host)
            # Were it asked again, it would lead elsewhere.
            address = "127.0.0.1" if len(asked) == 1 else "10.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
        return real(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with httpcore.ConnectionPool(network_backend=GuardedBackend("loopback")) as pool:
        reply = pool.request("POST", f"http://hook.example:{port}/", content=b"{}")

    assert (reply.status, asked) == (200, ["hook.example"])
    assert receiver.came[0][0]["host"] == f"hook.example:{port}"


def test_a_private_name_ends_a_delivery_at_once(
    http: httpx.Client, api: RunningApi, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.hook("https://metadata.example/", "job.completed")
    whole_job(http, api)
    real = socket.getaddrinfo

    def answers(host: str, *rest: object, **more: object) -> object:
        if host == "metadata.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 443))]
        return real(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    office.sender.step()

    (dead,) = office.all()
    assert (dead.state, dead.attempts) == ("dead", 1)
    assert "private network" in dead.news


# ---- the routes ----


def test_from_the_route_to_the_receiver(api: RunningApi, receiver: Receiver) -> None:
    settings = api.settings.model_copy(update={"webhooks": "loopback"})
    with serving(settings) as url, httpx.Client(base_url=url, trust_env=False) as http:
        cursor = "{fewstep}:q1:hooks:cursor"
        wait_until(lambda: api.redis.exists(cursor) == 1, "the sender")
        made = http.post("/v1/webhooks", json={"url": receiver.url}).json()
        whole_job(http, api)
        wait_until(lambda: len(receiver.came) == 2, "both messages")
        listed = http.get("/v1/webhooks").json()["webhooks"]

        def delivered() -> bool:
            found = http.get("/v1/webhooks/deliveries?state=delivered").json()["deliveries"]
            return len(found) == 2

        wait_until(delivered, "both to be noted")
        assert http.delete(f"/v1/webhooks/{made['id']}").status_code == 200
        assert http.get("/v1/webhooks").json()["webhooks"] == []

    assert made["secret"].startswith("whsec_")
    assert (listed[0]["id"], listed[0]["secret"]) == (made["id"], None)
    headers, body = receiver.came[0]
    assert Webhook(made["secret"]).verify(body, headers)["type"].startswith("job.")


def test_they_are_off_unless_the_operator_lets_them(http: httpx.Client) -> None:
    reply = http.post("/v1/webhooks", json={"url": "https://example.org/"})

    assert (reply.status_code, reply.json()["detail"]) == (403, "webhooks are off here")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "https://127.0.0.1/"}, "url_forbidden"),
        ({"url": "http://example.org/"}, "url_forbidden"),
        ({"url": "https://example.org/", "events": []}, "invalid_input"),
        ({"url": "https://example.org/", "events": ["job.gone"]}, "not_allowed"),
        ({"url": "https://example.org/", "secret": "mine"}, "unknown_field"),
        ({}, "missing_field"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused(
    api: RunningApi, body: dict[str, object], code: str
) -> None:
    settings = api.settings.model_copy(update={"webhooks": "https"})
    with serving(settings) as url, httpx.Client(base_url=url, trust_env=False) as http:
        reply = http.post("/v1/webhooks", json=body)

    assert (reply.status_code, reply.json()["code"]) == (422, code)


def test_no_tenant_hears_of_anothers_jobs(
    keyed: KeyedApi, office: Office, receiver: Receiver
) -> None:
    office.hooks.add("bob", receiver.url, ("job.started", "job.completed"), 1)
    with keyed.visit(keyed.make("ann")) as hers, keyed.visit(keyed.make("bob")) as his:
        job_id = submit(hers, BODY)
        render_shards(keyed.api, job_id)
        finish_dataset(keyed.api, job_id)
        office.sender.step()
        assert his.get("/v1/webhooks/deliveries").json()["deliveries"] == []
        assert hers.get("/v1/webhooks").json()["webhooks"] == []

    assert receiver.came == []
