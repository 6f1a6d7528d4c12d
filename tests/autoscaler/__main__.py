"""`python -m tests.autoscaler`: nodes from none to many and back, by Ray's own autoscaler.

    python -m tests.autoscaler [--folder FOLDER]     as root; writes its table into docs/scale.md

Everything runs in namespaces of its own: ports, kills and Ray's folders reach nobody outside.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.autoscaler.scenes import Measured, Scenes
from tests.autoscaler.site import AutoscaledSite
from tests.chaos.apart import apart
from tests.chaos.examine import Verdict
from tests.chaos.faults_ray import namespaces_missing
from tests.chaos.ray_site import RAY, RAY_FOLDER, Nobody
from tests.chaos.seats import OLD, RedisSeat, StoreSeat
from tests.chaos.table import machine
from tests.s3_servers import WEAK

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "scale.md"
#: Between these the table is written.
MARKS = ("<!-- make autoscale -->\n", "<!-- until here -->\n")
_RESULT = "result.json"


def main() -> int:
    """0: all was as wanted; 1: not; 2: this machine cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.autoscaler", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--folder", type=Path, help="for logs; kept")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        return _inside(chosen.folder)
    if reason := namespaces_missing():
        print(f"make autoscale {reason}")
        return 2
    folder: Path = chosen.folder or Path(tempfile.mkdtemp(prefix="fewstep-autoscaler-"))
    folder.mkdir(parents=True, exist_ok=True)
    command = apart([sys.executable, "-m", "tests.autoscaler", "--inside", "--folder", str(folder)])
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEWSTEP_")}
    env |= {**RAY, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=env, cwd=ROOT, check=False).returncode
    if ended:
        print(f"not as wanted, see {folder}")
        return 1
    told = json.loads((folder / _RESULT).read_text())
    _write([Measured(**row) for row in told])
    if chosen.folder is None:
        shutil.rmtree(folder)
    return 0


def _inside(folder: Path) -> int:
    redis, store = RedisSeat(folder / "redis", OLD), StoreSeat(folder / "s3", WEAK)
    redis.start()
    store.start()
    site = AutoscaledSite(folder, Nobody(), redis, store)  # type: ignore[arg-type]
    began = time.monotonic()
    try:
        scenes = Scenes(site, lambda line: print(f"{time.monotonic() - began:6.1f} s  {line}"))
        site.ray_head()
        site.ray_scheduler()
        scenes.play()
        verdict = scenes.verdict()
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        shutil.copytree(RAY_FOLDER / "session_latest" / "logs", folder / "ray-logs")
        site.close()
        store.kill()
        redis.kill()
    scenes.rows.append(Measured("images lost, doubled, wrong", _counts(verdict)))
    scenes.rows.append(Measured("processes, leases, keys, files left over", _left(verdict)))
    (folder / _RESULT).write_text(json.dumps([asdict(row) for row in scenes.rows]))
    print(verdict)
    return 0 if verdict.clean else 1


def _counts(verdict: Verdict) -> str:
    return ", ".join(str(len(found)) for found in (verdict.lost, verdict.doubled, verdict.wrong))


def _left(verdict: Verdict) -> str:
    return str(len(verdict.left_over))


def _write(rows: list[Measured]) -> None:
    """The table into its place in the document."""
    load = ", ".join(f"{one:.0f}" for one in os.getloadavg())
    day = f"{datetime.now(UTC):%d %B %Y}".lstrip("0")
    lines = [
        f"`make autoscale`, {machine()}, {day}, load average {load}.\n",
        "\n",
        "| what | came to |\n",
        "|---|---|\n",
        *(f"| {row.what} | {row.came} |\n" for row in rows),
    ]
    print("".join(lines))
    text = DOCUMENT.read_text("utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if mark:
        DOCUMENT.write_text("".join((before, MARKS[0], *lines, MARKS[1], after)), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
