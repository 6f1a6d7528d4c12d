"""The Ray head of a local stack: on loopback alone, behind a token, in a session of its own."""

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

#: Ray's sockets lie about 65 characters below its folder, and Unix allows 107.
LONGEST_FOLDER = 40
#: No picture passes through Ray's object store: the least it takes, with some air.
OBJECT_STORE_BYTES = 100_000_000
_TOKEN = "auth_token"
_PORT_FLAGS = (
    "--node-manager-port",
    "--object-manager-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
)


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that nobody listens on just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def make_ray_folder(home: Path) -> Path:
    """A new folder for Ray: in `home`, or in /tmp where that path would be too long for it."""
    inside = home / "ray"
    if len(str(inside)) <= LONGEST_FOLDER:
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir(mode=0o700)
        folder = inside
    else:
        folder = Path(tempfile.mkdtemp(prefix="fewstep-ray-", dir="/tmp"))
    token = folder / _TOKEN
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), "utf-8")
    return folder


def ray_variables(folder: Path) -> dict[str, str]:
    """What Ray reads from the environment, in the head and in every process that joins it."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / _TOKEN),
        # Ray takes 127.0.0.1 for the machine's outer address, and listens there, unless it
        # thinks that clusters are impossible here. So nothing of it can be reached from outside.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def start_ray(
    folder: Path, port: int, renderers: int, variables: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start the head; it is ready when `ray_is_ready` says so. Stop it by its session."""
    flags = [
        f"{flag}={free}"
        for flag, free in zip(_PORT_FLAGS, free_ports(len(_PORT_FLAGS)), strict=True)
    ]
    (folder / "ray_current_cluster").unlink(missing_ok=True)
    command = [
        *(sys.executable, "-P", "-c", "from ray.scripts.scripts import main; main()"),
        *("start", "--head", "--block", "--disable-usage-stats"),
        *("--include-dashboard=false", "--include-log-monitor=false", "--no-monitor"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", *flags),
        f"--num-cpus={max(renderers, 2) + 1}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={folder}",
        *("--log-style=record", "--log-color=false"),
    ]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(variables),
            cwd=folder,
            start_new_session=True,
        )


def ray_is_ready(folder: Path, port: int) -> bool:
    """Whether the head that was started last has its node up and has told its address."""
    try:
        return (folder / "ray_current_cluster").read_text("utf-8").strip().endswith(f":{port}")
    except FileNotFoundError:
        return False
