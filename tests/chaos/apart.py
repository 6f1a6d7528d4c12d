"""Runs a fault of Ray where it can disturb no other Ray: in namespaces of its own.

    python -m tests.chaos.apart ROW NAME REDIS STORE FOLDER     inside; the result goes to FOLDER

Network, processes and mounts are new ones: ports, kills and Ray's folders reach nobody outside.
"""

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.chaos.examine import Verdict, examine
from tests.chaos.fault import Fault, Result
from tests.chaos.ray_site import RAY, Nobody, RaySite
from tests.chaos.seats import RedisSeat, StoreSeat

_INSIDE = 'ip link set lo up && mount -t tmpfs fewstep-chaos /mnt && exec "$0" "$@"'
_RESULT = "result.json"


def apart(command: Sequence[str]) -> list[str]:
    """The command in new namespaces: with loopback alone, and room for Ray in /mnt."""
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"),
        *("bash", "-c", _INSIDE, *command),
    ]


def strike_apart(fault: Fault, redis: str, store: str, folder: Path) -> Result:
    """Strike once, in a process of its own in namespaces of its own; never raises."""
    result = Result(fault, redis, store, folder=str(folder))
    started = time.monotonic()
    folder.mkdir()
    module = (sys.executable, "-m", "tests.chaos.apart")
    command = apart([*module, fault.row, fault.name, redis, store, str(folder)])
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEWSTEP_")}
    with (folder / "apart.log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env={**env, **RAY}, check=False)
    try:
        told = json.loads((folder / _RESULT).read_text())
        result.injected, result.recoveries = told["injected"], told["recoveries"]
        result.error, result.verdict = told["error"], Verdict(**told["verdict"])
    except (OSError, ValueError):
        result.error = f"it ended with {done.returncode} and said nothing"
    result.seconds = time.monotonic() - started
    return result


def _strike(fault: Fault, result: Result, folder: Path) -> None:
    redis, store = RedisSeat(folder / "redis", result.redis), StoreSeat(folder / "s3", result.store)
    redis.start()
    store.start()
    site = RaySite(folder, Nobody(), redis, store)  # type: ignore[arg-type]
    try:
        try:
            fault.strike(site)
            site.wait_for_end()
        finally:
            result.injected = site.recovery.injected
            result.recoveries = site.recovery.seconds
        wrong = site.leave()
        result.verdict = examine(site, site.pictures, [site.the_job])
        result.verdict.otherwise += wrong
        result.verdict.left_over += site.left_processes()
    finally:
        site.close()
        store.kill()
        redis.kill()


def main() -> int:
    """Inside: strike, and write down what came of it."""
    from tests.chaos.catalogue import FAULTS

    row, name, redis, store, folder = sys.argv[1:]
    fault = next(one for one in FAULTS if (one.row, one.name) == (row, name))
    result = Result(fault, redis, store)
    try:
        _strike(fault, result, Path(folder))
    except Exception:
        result.error = traceback.format_exc()
    told = {"injected": result.injected, "recoveries": result.recoveries, "error": result.error}
    told["verdict"] = asdict(result.verdict)
    Path(folder, _RESULT).write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
