"""Connecting to Redis: errors that say what is wrong and what to do."""

import pytest
import redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from jobs.errors import BadConfiguration, Unreachable
from jobs.redis_client import (
    address,
    check_server,
    control_client,
    explain,
    heartbeat_client,
    safe_url,
)
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import request_for
from tests.servers import free_port, running_redis


def test_a_good_server_says_what_it_is(client: redis.Redis) -> None:
    facts = check_server(client)
    assert facts.version.startswith(("6.", "7.", "8."))
    assert facts.used_memory > 0


def test_a_wrong_address_is_named() -> None:
    port = free_port()
    with heartbeat_client(f"redis://127.0.0.1:{port}/0") as client:
        with pytest.raises(Unreachable, match="does not answer") as caught:
            check_server(client)
    assert caught.value.where == f"127.0.0.1:{port}"
    assert "FEWSTEP_REDIS_URL" in str(caught.value)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(BadConfiguration, match="no Redis address"):
        control_client("http://example.org")


def test_password_and_policy_are_checked() -> None:
    with running_redis("--maxmemory-policy", "allkeys-lru", password="secret") as server:
        with control_client(server.url.replace("secret", "guess")) as client:
            with pytest.raises(BadConfiguration, match="password") as caught:
                check_server(client)
            assert "guess" not in str(caught.value)
        with control_client(server.url.replace(":secret@", "")) as client:
            with pytest.raises(BadConfiguration, match="password"):
                check_server(client)
        with control_client(server.url) as client:
            with pytest.raises(BadConfiguration, match="allkeys-lru") as caught:
                check_server(client)
            assert "noeviction" in str(caught.value.remedy)
            client.config_set("maxmemory-policy", "noeviction")
            assert check_server(client).maxmemory == 0


def test_a_full_server_is_told_from_a_bug() -> None:
    with running_redis() as server, heartbeat_client(server.url) as client:
        queue = ShardQueue(client)
        assert queue.submit(request_for()).outcome == "ok"
        client.config_set("maxmemory", 1)
        with pytest.raises(Unreachable, match="no writes"):
            queue.submit(request_for("job2"))
        client.config_set("maxmemory", 0)
        assert queue.submit(request_for("job2")).outcome == "ok"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ReadOnlyError("You can't write against a read only replica."), Unreachable),
        (OutOfMemoryError("command not allowed"), Unreachable),
        (ResponseError("BUSY Redis is busy running a script"), Unreachable),
        (ResponseError("MISCONF Redis is configured to save"), Unreachable),
        (ResponseError("NOREPLICAS Not enough good replicas"), Unreachable),
        (redis.TimeoutError("Timeout reading from socket"), Unreachable),
        (ResponseError("NOAUTH Authentication required."), BadConfiguration),
    ],
)
def test_errors_have_a_reader(error: redis.RedisError, kind: type[Exception]) -> None:
    assert isinstance(explain(error, "here"), kind)


def test_bugs_of_ours_pass_unchanged() -> None:
    assert explain(ResponseError("ERR no such op: clim")) is None


def test_secrets_stay_out_of_messages() -> None:
    assert safe_url("redis://:secret@host:6379/0") == "redis://host:6379/0"
    assert address(control_client("redis://:secret@host:6380/0")) == "host:6380"
