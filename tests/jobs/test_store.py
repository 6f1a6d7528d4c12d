"""The store behaves the same on both servers, and says what is wrong where it cannot."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from pydantic import SecretStr

from jobs import store as store_module
from jobs import upload
from jobs.errors import BadConfiguration, FewstepError, InvalidInput, NotFound, Unreachable
from jobs.s3_client import Patience
from jobs.settings import Settings
from jobs.store import Store
from tests.s3_servers import ACCESS, SECRET, settings_for
from tests.servers import free_port

pytest_plugins = ["tests.s3_servers"]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class LosesReply:
    """A client whose first write arrives, and whose reply does not."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **request: Any) -> Any:
        reply = self._client.put_object(**request)
        if not self.lost:
            self.lost = True
            raise ConnectionClosedError(endpoint_url="http://store")
        return reply


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "answered"

    return call


def refusal(status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "PutObject",
    )


def test_what_was_put_comes_back_with_its_facts(store: Store) -> None:
    reply = store.put("a/b.bin", b"12345", metadata={"Token": "17"}, content_type="text/plain")

    found = store.head("a/b.bin")
    assert store.get("a/b.bin") == b"12345"
    assert store.get_range("a/b.bin", 1, 3) == b"23"
    assert store.get_range("a/b.bin", 3, 99) == b"45"
    assert found is not None
    assert (found.bytes, found.etag, found.metadata["token"]) == (5, reply.etag, "17")
    assert found.modified_ms > 1_700_000_000_000


def test_what_is_not_there_is_said_by_name(store: Store, tmp_path: Path) -> None:
    assert store.head("none") is None
    for read in (store.get, lambda key: store.download(key, tmp_path / "file")):
        with pytest.raises(NotFound, match="none"):
            read("none")
    with pytest.raises(NotFound, match="none"):
        store.copy("none", "other", content_type="a/b", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_a_listing_is_in_order_and_complete(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAGE", 5)
    keys = [f"many/{n:04d}" for n in range(12)]
    for key in keys:
        store.put(key, b"1")

    assert [found.key for found in store.list("many/")] == keys
    assert [found.key for found in store.list("many/000")] == keys[:10]
    assert list(store.list("few/")) == []
    assert store.delete_prefix("many/") == 12
    assert list(store.list("many/")) == []


def test_deleting_what_is_gone_is_no_error(store: Store) -> None:
    store.put("a", b"1")

    store.delete(["a", "b/c"])
    store.delete([])

    assert store.head("a") is None


@pytest.mark.parametrize("prefix", ["", "/", "datasets"])
def test_only_folders_are_deleted_whole(store: Store, prefix: str) -> None:
    with pytest.raises(ValueError, match="no folder"):
        store.delete_prefix(prefix)


def test_if_absent_keeps_what_is_there(store: Store) -> None:
    first = store.put("a", b"1", metadata={"token": "1"}, if_absent=True)
    other = store.put("a", b"2", metadata={"token": "2"}, if_absent=True)
    again = store.put("a", b"3", metadata={"token": "1"}, if_absent=True)

    assert (first.stored, first.fresh) == (True, True)
    assert (other.stored, other.fresh) == (False, False)
    assert (again.stored, again.fresh) == (True, False)
    assert again.etag == first.etag
    assert store.get("a") == b"1"


def test_of_many_writers_at_once_one_is_stored(store: Store) -> None:
    if not store.honours_absent:
        pytest.skip("this server lets all of them through, which is why there is an arbiter")
    replies: list[bool] = []

    def write(token: str) -> None:
        reply = store.put("a", token.encode(), metadata={"token": token}, if_absent=True)
        replies.append(reply.stored)

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(replies) == [False] * 7 + [True]


def test_a_lost_reply_does_not_make_us_lose(store: Store) -> None:
    """The write arrived and is repeated: the store refuses it, the token says it is ours."""
    clock = Clock()
    client = LosesReply(store._client)
    patient = Store(
        client,
        store.bucket,
        store.address,
        honours_absent=store.honours_absent,
        patience=Patience(seconds=60, clock=clock, sleep=clock.sleep),
    )

    reply = patient.put("a", b"1", metadata={"token": "1"}, if_absent=True)

    assert client.lost
    assert reply.stored
    assert len(clock.pauses) == 1


def test_a_large_object_is_written_in_parts(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "THRESHOLD", 1 << 20)
    monkeypatch.setattr(upload, "PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (6 << 12))

    first = store.put_file("large", path, metadata={"token": "1"}, if_absent=True)
    second = store.put_file("large", path, metadata={"token": "2"}, if_absent=True)

    assert (first.stored, second.stored) == (True, False)
    assert store.get("large") == path.read_bytes()
    found = store.head("large")
    assert found is not None
    assert found.metadata["token"] == "1"


def test_a_copy_has_the_bytes_and_its_own_metadata(store: Store) -> None:
    store.put("a", b"1", metadata={"token": "1"})

    store.copy("a", "b/c", content_type="application/x-tar", metadata={"token": "2"})

    found = store.head("b/c")
    assert found is not None
    assert (store.get("b/c"), found.metadata["token"]) == (b"1", "2")


def test_a_download_is_whole_and_digested(store: Store, tmp_path: Path) -> None:
    store.put("a", b"abc")

    digest = store.download("a", tmp_path / "new" / "file")

    assert (tmp_path / "new" / "file").read_bytes() == b"abc"
    assert digest.startswith("ba7816bf")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_presigned_address_reads_without_keys(store: Store) -> None:
    from urllib.request import urlopen

    store.put("a", b"abc")

    with urlopen(store.presign("a", 60)) as reply:
        assert reply.read() == b"abc"


def test_the_probe_finds_out_what_the_server_does(
    store: Store, s3_settings: Settings, rclone_url: str
) -> None:
    assert store.honours_absent == (s3_settings.s3_endpoint != rclone_url)
    assert list(store.list("")) == []


def test_a_missing_bucket_is_named(s3_settings: Settings) -> None:
    assert s3_settings.s3_endpoint is not None
    with pytest.raises(BadConfiguration, match=r"test-none.*FEWSTEP_S3_BUCKET"):
        Store.connect(settings_for(s3_settings.s3_endpoint, "test-none"))


@pytest.mark.parametrize("wrong", [{"s3_access_key": "x" * 20}, {"s3_secret_key": "x" * 20}])
def test_wrong_keys_are_said_and_not_shown(rclone_url: str, wrong: dict[str, str]) -> None:
    secret = {name: SecretStr(value) for name, value in wrong.items()}
    settings = settings_for(rclone_url).model_copy(update=secret)

    with pytest.raises(BadConfiguration, match="FEWSTEP_S3_SECRET_KEY") as raised:
        Store.connect(settings)

    said = repr(raised.value) + str(raised.value)
    assert all(value not in said for value in (ACCESS, SECRET, *wrong.values()))


def test_a_store_shows_its_address_and_no_keys(store: Store) -> None:
    assert store.address in repr(store)
    assert all(value not in repr(vars(store)) + repr(store) for value in (ACCESS, SECRET))


def test_an_address_where_nobody_listens_is_named() -> None:
    port = free_port()

    with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{port}.*FEWSTEP_S3_ENDPOINT"):
        Store.connect(settings_for(f"http://127.0.0.1:{port}"))


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    with pytest.raises(BadConfiguration, match="http"):
        Store.connect(settings_for("localhost:9000"))


def test_patience_asks_again_with_growing_pauses() -> None:
    clock = Clock()
    patience = Patience(seconds=60, clock=clock, sleep=clock.sleep)

    answer = patience.ask(failing(*[refusal(503, "SlowDown")] * 4), "here")

    assert answer == "answered"
    assert len(clock.pauses) == 4
    assert all(2**n / 2 <= pause <= 2**n for n, pause in enumerate(clock.pauses))


def test_patience_ends_at_its_deadline() -> None:
    clock = Clock()
    patience = Patience(seconds=60, clock=clock, sleep=clock.sleep)

    with pytest.raises(Unreachable, match="here"):
        patience.ask(failing(*[refusal(500, "InternalError")] * 99), "here")

    assert clock.now <= 60


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal(403, "AccessDenied"), BadConfiguration),
        (refusal(404, "NoSuchBucket"), BadConfiguration),
        (refusal(404, "NoSuchKey"), NotFound),
        (refusal(400, "InvalidArgument"), FewstepError),
        (refusal(501, "NotImplemented"), FewstepError),
    ],
)
def test_patience_does_not_wait_for_what_will_not_pass(
    error: ClientError, kind: type[FewstepError]
) -> None:
    clock = Clock()

    with pytest.raises(kind, match="here") as raised:
        Patience(clock=clock, sleep=clock.sleep).ask(failing(error), "here")

    assert type(raised.value) is kind
    assert clock.pauses == []


@pytest.mark.parametrize(
    "key", ["../x", "a/../b", "/a", "a//b", "a/%2e%2e/b", "a\\b", "a\n", "a" * 1025, "", "./a"]
)
def test_a_key_out_of_its_folder_is_refused(store: Store, key: str) -> None:
    """Some stores take them as they are, some as paths: nobody is asked."""
    with pytest.raises(InvalidInput, match="no key that we write"):
        store.put(key, b"1")
    with pytest.raises(InvalidInput, match="no key that we write"):
        store.copy("a", key, content_type="text/plain", metadata={})
    assert list(store.list("")) == []
