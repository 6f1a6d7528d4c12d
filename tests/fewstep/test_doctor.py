"""`fewstep doctor` on real servers that are broken: each condition is named, with its remedy."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from fewstep import doctor
from fewstep.doctor import examine
from fewstep.doctor_jobs import queue_found
from fewstep.doctor_leftovers import leftovers_found
from fewstep.doctor_machine import disk_found
from fewstep.doctor_ray import ray_found
from fewstep.doctor_servers import redis_found, store_found
from fewstep.findings import Finding
from jobs.catalog import load_catalog
from jobs.errors import BadConfiguration, FewstepError, Unreachable
from jobs.job import JobRequest
from jobs.queue_placement import Placement
from jobs.recover import recover_jobs
from jobs.redis_client import control_client
from jobs.rows import Row
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.submit import submit_job
from tests.s3_servers import settings_for
from tests.servers import RedisServer, free_port, running_redis

DAY_S = 24 * 3600


def only(found: Iterator[Finding], name: str) -> Finding:
    """The one finding whose name begins so."""
    [one] = [finding for finding in found if finding.name.startswith(name)]
    return one


def assert_says(finding: Finding, level: str, *words: str) -> None:
    assert finding.level == level, finding
    for word in words:
        assert word in f"{finding.text} -> {finding.remedy}"
    if level != "ok":
        assert finding.remedy


class House:
    """Redis and a store with nothing wrong, and jobs in them."""

    def __init__(self, redis_url: str, moto_url: str) -> None:
        self.settings = settings_for(moto_url).model_copy(
            update={"redis_url": SecretStr(redis_url)}
        )
        self.store = Store.connect(self.settings, create_bucket=True)
        self.client = control_client(redis_url)
        self.queue = ShardQueue(self.client)

    def close(self) -> None:
        self.store.close()
        self.client.close()

    def past(self, seconds: float) -> ShardQueue:
        """The queue as it was so long ago."""
        return ShardQueue(self.client, clock=lambda: round((time.time() - seconds) * 1000))

    def submit(self, key: str = "key") -> str:
        done = submit_job(
            self.store,
            self.queue,
            load_catalog(),
            prefix=self.settings.s3_prefix,
            tenant="default",
            request=JobRequest(shard_images=1),
            rows=(Row(prompt="a"), Row(prompt="b")),
            idempotency_key=key,
            now_ms=round(time.time() * 1000),
        )
        return done.id

    def engine(self, job_id: str) -> str:
        record = self.queue.job(job_id)
        assert record is not None
        return record.engine_key

    def found(self, name: str) -> Finding:
        return only(queue_found(self.settings), name)


@pytest.fixture
def house(redis_url: str, moto_url: str) -> Iterator[House]:
    made = House(redis_url, moto_url)
    yield made
    made.client.flushall()
    made.close()


def redis_at(url: str) -> Settings:
    return Settings(redis_url=SecretStr(url))


# ---- Redis ----


def test_redis_away_or_with_another_password() -> None:
    port = free_port()
    with pytest.raises(Unreachable, match=str(port)) as away:
        list(redis_found(redis_at(f"redis://127.0.0.1:{port}/0")))
    assert "FEWSTEP_REDIS_URL" in str(away.value.remedy)
    with running_redis(password="right0") as server:
        with pytest.raises(BadConfiguration, match="password"):
            list(redis_found(redis_at(server.url.replace("right0", "wrong0"))))


def test_redis_that_evicts_or_forgets() -> None:
    with running_redis() as server, server.client() as admin:
        settings = redis_at(server.url)
        assert_says(only(redis_found(settings), "redis file"), "warn", "appendonly yes")
        admin.config_set("appendonly", "yes")
        assert not [one for one in redis_found(settings) if one.name == "redis file"]
        admin.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(BadConfiguration, match="allkeys-lru"):
            list(redis_found(settings))


def full(server: RedisServer) -> None:
    with server.client() as admin:
        admin.config_set("maxmemory", 1)


def replica(server: RedisServer) -> None:
    with server.client() as admin:
        admin.replicaof("127.0.0.1", 1)


def alone(server: RedisServer) -> None:
    with server.client() as admin:
        admin.config_set("min-replicas-to-write", 1)


@pytest.mark.parametrize(
    ("broken", "remedy"), [(full, "maxmemory"), (replica, "primary"), (alone, "replicas")]
)
def test_redis_that_takes_no_writes(broken: Callable[[RedisServer], None], remedy: str) -> None:
    with running_redis() as server:
        broken(server)
        found = []
        with pytest.raises(Unreachable, match="no writes") as refused:
            found.extend(redis_found(redis_at(server.url)))
        assert remedy in str(refused.value.remedy)


def test_redis_nearly_full() -> None:
    with running_redis() as server, server.client() as admin:
        settings = redis_at(server.url)
        assert_says(only(redis_found(settings), "redis memory"), "ok", "no limit")
        admin.config_set("maxmemory", int(admin.info("memory")["used_memory"] * 1.3))
        assert_says(only(redis_found(settings), "redis memory"), "warn", "raise maxmemory")


def test_a_clock_that_differs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("fewstep.doctor_servers.time.time", lambda: now() + 60)
    assert_says(only(redis_found(house.settings), "clock"), "warn", "60.0 s from Redis's")
    assert_says(only(store_found(house.settings), "store clock"), "warn", "synchronise")


# ---- the store ----


def test_the_store_away_refusing_or_without_its_bucket(moto_url: str, rclone_url: str) -> None:
    bad: list[tuple[Settings, type[FewstepError], str]] = [
        (settings_for(f"http://127.0.0.1:{free_port()}"), Unreachable, "FEWSTEP_S3_ENDPOINT"),
        (settings_for(moto_url, "never-made"), BadConfiguration, "FEWSTEP_S3_BUCKET"),
        (
            settings_for(rclone_url).model_copy(
                update={"s3_secret_key": SecretStr("wrongsecretkey001")}
            ),
            BadConfiguration,
            "FEWSTEP_S3_SECRET_KEY",
        ),
    ]
    for settings, kind, remedy in bad:
        with pytest.raises(kind) as refused:
            list(store_found(settings))
        assert remedy in str(refused.value.remedy)


def test_a_store_that_ignores_conditions(house: House, rclone_url: str) -> None:
    assert_says(only(store_found(house.settings), "store writes"), "ok", "honoured")
    weak = settings_for(rclone_url)
    Store.connect(weak, create_bucket=True).close()
    assert_says(only(store_found(weak), "store writes"), "warn", "ignored", "newer version")
    assert_says(only(store_found(weak), "store clock"), "ok")


def test_nothing_of_the_doctors_stays(house: House) -> None:
    assert examine_servers(house) == examine_servers(house)
    assert list(house.store.list("")) == []


def examine_servers(house: House) -> list[str]:
    checks = (redis_found, store_found, queue_found)
    return [one.name for check in checks for one in check(house.settings)]


# ---- queue and store together ----


def test_an_empty_redis_beside_jobs_that_have_not_ended(house: House) -> None:
    job = house.submit()
    assert_says(house.found("queue"), "ok")
    house.client.flushall()
    assert_says(house.found("queue"), "fail", "Redis is empty", "fewstep restore")
    house.submit("another")
    assert_says(house.found("queue"), "fail", "does not know 1 jobs", job, "fewstep restore")
    assert list(recover_jobs(house.store, house.queue, house.settings.s3_prefix)) == [job]
    assert_says(house.found("queue"), "ok")


def test_a_job_whose_folder_is_gone(house: House) -> None:
    job = house.submit()
    house.store.delete([found.key for found in house.store.list("")])
    gone = [one for one in queue_found(house.settings) if "the store has no" in one.text]
    assert [one.name for one in gone] == [f"job {job}"]
    assert_says(gone[0], "fail", "job.json", "cancel")


def test_no_scheduler(house: House) -> None:
    assert_says(house.found("scheduler"), "fail", "never seen", "fewstep up")
    house.past(60).scheduler_beat()
    assert_says(house.found("scheduler"), "fail", "last seen 60 s ago")
    house.queue.scheduler_beat()
    assert_says(house.found("scheduler"), "ok")


def test_renderers_that_are_broken_or_silent(house: House) -> None:
    job = house.submit()
    info = {"engine_key": house.engine(job), "state": "broken", "error": "the weights are damaged"}
    house.queue.heartbeat("w", info)
    assert_says(house.found("renderer w"), "fail", "the weights are damaged", "tries again")
    assert_says(house.found(f"job {job}"), "fail", "cannot start: the weights are damaged")
    house.past(50).heartbeat("w", info | {"state": "rendering"})
    assert_says(house.found("renderer w"), "warn", "no heartbeat for 50 s", "run out")
    house.queue.heartbeat("w", info | {"state": "rendering"})
    assert_says(house.found("renderer w"), "ok", "rendering")


def test_leases_that_nobody_holds_or_claims(house: House) -> None:
    job = house.submit()
    engine = house.engine(job)
    assert_says(house.found("leases"), "ok")
    house.past(70).claim("w", "n1", engine, 1, 60_000)
    assert_says(house.found("leases"), "warn", f"{job}/0", "nobody claims")
    house.queue.claim("w", "n2", engine, 2, 60_000)
    assert_says(house.found("leases"), "warn", "gone", "offered again in")
    house.queue.heartbeat("w", {"engine_key": engine, "state": "rendering"})
    assert_says(house.found("leases"), "ok", "in flight")


def test_a_job_without_progress(house: House) -> None:
    job = house.submit()
    house.past(1_200).claim("w", "n1", house.engine(job), 1, 60_000)
    assert_says(house.found(f"job {job}"), "warn", "no image for 20 min")


def test_waiting_jobs_say_why(house: House) -> None:
    job = house.submit()
    name, engine = f"job {job}", house.engine(job)
    assert_says(house.found(name), "warn", "waiting: no scheduler is running", "fewstep up")
    house.queue.scheduler_beat()
    assert_says(house.found(name), "warn", "scaling up", "scheduler")
    house.queue.place(Placement(1, {}, {engine: 0}))
    assert_says(house.found(name), "warn", "no renderer fits", "FEWSTEP_MAX_RENDERERS")
    for state, reason in (
        ("loading", "loading weights"),
        ("rendering", "takes it up next"),
        ("waiting for the store", "cannot reach the store"),
    ):
        house.queue.heartbeat("w", {"engine_key": engine, "state": state})
        level = "warn" if "store" in reason else "ok"
        assert_says(house.found(name), level, reason)
    house.queue.state(job, "pause")
    assert_says(house.found(name), "ok", "paused", f"fewstep resume {job}")


def test_failed_jobs_say_why(house: House) -> None:
    job = house.submit()
    assert house.queue.finish(job, "failed", "2 images failed, 1 may") == "ok"
    assert_says(
        house.found(f"job {job}"), "warn", "2 images failed, 1 may", f"fewstep failed {job}"
    )


def test_leftovers_in_the_store(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = house.settings.s3_prefix
    key = f"{prefix}/_scratch/default/job/staged/00000.17.tar"
    house.store.put(key, b"1")
    client = house.store._client
    upload = {"Bucket": house.store.bucket, "Key": f"{prefix}/default/job/train/00000.tar"}

    def leftovers() -> dict[str, Finding]:
        return {one.name: one for one in leftovers_found(house.store, house.queue, prefix)}

    assert {one.level for one in leftovers().values()} == {"ok"}
    # moto says of every upload in parts that it was begun in 2010.
    client.create_multipart_upload(**upload)
    now = time.time
    monkeypatch.setattr("fewstep.doctor_leftovers.time.time", lambda: now() + 2 * DAY_S)
    found = leftovers()
    assert_says(found["uploads"], "warn", "1 were begun", "AbortIncompleteMultipartUpload")
    assert_says(
        found["staged shards"], "warn", "1 objects", key.rpartition("/")[0], "fewstep sweep"
    )


# ---- this machine ----


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_nearly_full(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_says(only(disk_found(small_disk), "disk"), "fail", "nearly full", "FEWSTEP_HOME")
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    found = only(disk_found(Path("/")), "temporary files")
    assert_says(found, "fail", "nearly full", "TMPDIR")


@pytest.mark.parametrize("says", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_listens_at_rays_address_is_not_ray(
    says: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs, one that speaks otherwise, one that ends the connection."""
    monkeypatch.setattr("fewstep.doctor_ray.TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(24)
                if says is None:
                    connection.recv(1_000)
                    connection.recv(1_000)
                else:
                    connection.sendall(says)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (found,) = ray_found(Settings(ray_address=address))
        thread.join(20)
    words = "does not speak" if says else "does not"
    assert_says(found, "fail", words, "FEWSTEP_RAY_ADDRESS")


def test_all_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check runs, whatever the others find, and its order is that of dependence."""
    settings = house.settings
    variables = {
        "FEWSTEP_REDIS_URL": settings.redis_url.get_secret_value(),
        "FEWSTEP_S3_ENDPOINT": settings.s3_endpoint,
        "FEWSTEP_S3_BUCKET": settings.s3_bucket,
        "FEWSTEP_S3_ACCESS_KEY": "testaccesskey0001",
        "FEWSTEP_S3_SECRET_KEY": "testsecretkey00001",
        "FEWSTEP_API_URL": f"http://127.0.0.1:{free_port()}",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    job = house.submit()
    found = {one.name: replace(one) for one in examine()}
    assert [found[name].level for name in ("redis", "store", "queue")] == ["ok"] * 3
    assert_says(found["api"], "fail", "does not answer", "fewstep up")
    assert_says(found[f"job {job}"], "warn", "no scheduler")
    assert found["model tiny"].level == "ok"
    assert all(one.remedy for one in found.values() if one.level == "fail")
    assert os.environ["FEWSTEP_S3_SECRET_KEY"] not in str(found)


# ---- weights ----


def test_weights_in_a_store_are_looked_for_there(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are copied to nodes, not to whoever asks the doctor."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        "".join(
            f"""[{kind}s.{name}]
kind = "clip"
source = "s3://{house.store.bucket}/weights/{name}"
"""
            for kind, name in (("filter", "there"), ("filter", "gone"))
        )
    )
    house.store.put("weights/there/model.safetensors", b"12345678")
    settings = house.settings.model_copy(update={"catalog": catalog})
    found = list(doctor._models(settings))
    assert_says(only(iter(found), "filter there"), "ok", "1 objects", "weights/there")
    assert_says(only(iter(found), "filter gone"), "fail", "no object", "weights/gone")
