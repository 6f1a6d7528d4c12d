"""`make proof`: a dataset of 20,000 pictures through verbs and faults, read file by file.

A balanced template, filtered, with processes killed and the store frozen while it renders; then
extended, then what failed is tried again. Writes docs/dataset-proof.md.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fewstep.fetching import fetch_job
from fewstep.local import Stack
from fewstep.private_stack import private_stack
from jobs.client import Client
from jobs.filters import FilterRequest
from jobs.job import JobRequest, JobView
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job
from jobs.states import TERMINAL
from jobs.store import Store
from jobs.templates.template import TemplateRequest
from tests.proof.judging import judge
from tests.proof.reading import Found, read_fetched
from tests.proof.strikes import Poison, freeze
from tests.proof.table import write_table
from workers.tiny.captions import BACKGROUNDS, COLOURS, SHAPES, SIZES

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = TemplateRequest(
    template="a {{size}} {{colour}} {{shape}} {{position}} on a {{background}} background",
    lists={
        "size": SIZES,
        "colour": COLOURS,
        "shape": SHAPES,
        "position": ("in the centre", "on the left", "on the right", "at the top", "at the bottom"),
        "background": BACKGROUNDS,
    },
    mode="balanced",
)
FILTERS = (
    FilterRequest(name="prompt_agreement", policy="retry"),
    # So alike that the hashes are equal: the model's few shapes often come within some bits.
    FilterRequest(name="near_duplicate", policy="drop", at_least=1),
)
#: How long the object store answers nobody.
FROZEN_S = 5.0


@dataclass
class Run:
    """What happened, for the table."""

    rows: int
    killed: int = 0
    #: What was found after each step, and how long the step took in seconds.
    steps: dict[str, tuple[Found, float]] = field(default_factory=dict)


def main() -> None:
    """Make it, break it, read it, learn from it."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--images", type=int, default=20_000, help="after the extension")
    asked.add_argument("--out", type=Path, help="where the fetched dataset stays")
    asked.add_argument("--table", type=Path, default=ROOT / "docs" / "dataset-proof.md")
    options = asked.parse_args()
    run = Run(options.images // 2)
    with tempfile.TemporaryDirectory(prefix="fewstep-proof-") as scratch:
        out = options.out or Path(scratch) / "dataset"
        with private_stack(2, _say) as stack, Client(stack.settings.api_url) as client:
            _make(stack, client, out, run)
        learned, right = _learn(out), judge(out)
    write_table(options.table, run.rows, run.killed, FROZEN_S, run.steps, learned, right)
    wrong = [one for found, _ in run.steps.values() for one in found.wrong]
    if wrong:
        sys.exit("the files disagree: " + "; ".join(wrong[:10]))


def _make(stack: Stack, client: Client, out: Path, run: Run) -> None:
    """The job with faults, then its extension, then its retry; the files are read after each."""
    request = JobRequest(name="proof", seed=7, filters=FILTERS, max_tries=4)
    started = time.monotonic()
    sent = client.submit(request, TEMPLATE.model_copy(update={"count": run.rows}))
    run.killed = _strike(stack, client, sent.id)
    _read(stack, client, sent.id, out, run, "rendered under faults", started)
    for name, ask in (
        ("extended by as many", lambda: client.extend(sent.id, repeats=1)),
        ("failed ones tried again", lambda: client.retry_failed(sent.id)),
    ):
        started = time.monotonic()
        _finished(stack, client, ask().id)
        _read(stack, client, sent.id, out, run, name, started)


def _strike(stack: Stack, client: Client, job_id: str) -> int:
    """Two rows kill every process that takes them up, and the store is away for a while."""
    settings = stack.settings
    queue = ShardQueue(control_client(settings.redis_url.get_secret_value()))
    store = Store.connect(settings)
    job = read_job(store, settings.s3_prefix, settings.tenant, job_id)
    poison = Poison(queue, job, frozenset({job.images // 3, job.images - 5}))
    with poison.at_work():
        _wait(stack, client, job_id, lambda view: view.done > job.images // 4)
        freeze(stack.state.processes["s3"].pid, FROZEN_S)
        _finished(stack, client, job_id)
    store.close()
    return poison.killed


def _finished(stack: Stack, client: Client, job_id: str) -> None:
    _wait(stack, client, job_id, lambda view: view.state in TERMINAL)


def _wait(stack: Stack, client: Client, job_id: str, met: Callable[[JobView], bool]) -> None:
    view = client.job(job_id)
    while not met(view) and view.state not in TERMINAL:
        time.sleep(1)
        stack.check()
        view = client.job(job_id)
        _say(f"{job_id}: {view.state}, {view.done} of {view.images}, {view.failed} failed")


def _read(
    stack: Stack, client: Client, job_id: str, out: Path, run: Run, step: str, started: float
) -> None:
    took = time.monotonic() - started
    fetch_job(stack.settings, client.job(job_id), out)
    run.steps[step] = (read_fetched(out), took)
    _say(f"{step}: {run.steps[step][0].wrong or 'all files agree'}")


def _learn(out: Path) -> str:
    """What the example prints that trains a classifier on this dataset alone."""
    command = [sys.executable, str(ROOT / "examples" / "train_classifier.py"), str(out)]
    command += ["--label", "shape", "--label", "colour", "--true-pictures", "4000"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
