"""The same way on a real Ray cluster, and through the deaths of those who do the work."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fewstep.components import log_of
from fewstep.local import Stack
from jobs.client import Client
from jobs.fetch import fetch_dataset
from jobs.job import JobRequest, JobView
from jobs.layout import JobLayout
from jobs.records import LoadTimes
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.flow.one_machine import table_rows
from tests.servers import wait_until

pytestmark = pytest.mark.ray

PROMPTS = [f"a big {colour} star on the left" for colour in ("red", "blue", "green", "white")]
SAY: Callable[[str], None] = print


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, S3, Ray, API and scheduler, with leases short enough to wait for."""
    patch = pytest.MonkeyPatch()
    patch.setenv("FEWSTEP_LEASE_MS", "6000")
    patch.setenv("FEWSTEP_RENEW_MS", "500")
    # Its own: what earlier files fused would be read.
    patch.setenv("FEWSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
    with Stack.start(tmp_path_factory.mktemp("stack"), 2, SAY) as running:
        yield running
    patch.undo()


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.settings.api_url) as made:
        yield made


@pytest.fixture
def queue(stack: Stack) -> ShardQueue:
    return ShardQueue(control_client(stack.settings.redis_url.get_secret_value()))


def ended(client: Client, job_id: str) -> JobView:
    """The job once it is over."""
    last: list[JobView] = []

    def over() -> bool:
        last[:] = [client.job(job_id)]
        return last[0].state in ("done", "failed", "cancelled")

    wait_until(over, "the job to end", 240)
    return last[0]


def images_in(stack: Stack, job_id: str, out: Path) -> list[int]:
    settings = stack.settings
    store = Store.connect(settings)
    job = JobLayout(prefix=settings.s3_prefix, tenant="default", job_id=job_id)
    fetch_dataset(store, job, out)
    store.close()
    return sorted(row["image"] for row in table_rows(out))


def some_done(client: Client, job_id: str) -> bool:
    return client.job(job_id).done > 0


def renderer_pids(queue: ShardQueue) -> list[int]:
    return [int(one.info["pid"]) for one in queue.renderers() if one.info.get("pid")]


def loaded(queue: ShardQueue) -> list[LoadTimes]:
    """How long the stages of loading took, of each renderer that has its engine."""
    told = [one.info.get("load") for one in queue.renderers()]
    return [LoadTimes.model_validate_json(one) for one in told if one]


def test_two_renderers_share_a_job(
    stack: Stack, client: Client, queue: ShardQueue, tmp_path: Path
) -> None:
    """A first job brings both up: on a busy machine it may be over before the second is there."""
    first = client.submit(JobRequest(repeats=16, seed=7, shard_images=8), PROMPTS)
    ended(client, first.id)
    wait_until(lambda: len(loaded(queue)) == 2, "two renderers with their engines", 240)
    done = client.submit(JobRequest(repeats=32, seed=1, shard_images=8), PROMPTS)
    view = ended(client, done.id)
    assert (view.state, view.done, view.failed) == ("done", 128, 0)
    assert images_in(stack, done.id, tmp_path) == list(range(128))
    rows = table_rows(tmp_path)
    assert len({row["worker"] for row in rows}) == 2
    # One of them fused, the other read what the first had kept on this node.
    assert sorted(one.fuse_ms > 0 for one in loaded(queue)) == [False, True]


def test_a_style_of_the_same_base_takes_no_new_process(
    stack: Stack, client: Client, queue: ShardQueue, tmp_path: Path
) -> None:
    """The renderers that are there change their adapters, and back for the next test."""
    before = sorted(renderer_pids(queue))
    styled = {"styles": [{"name": "outline", "weight": 0.8}]}
    request = JobRequest.model_validate(
        {"recipe": styled, "repeats": 16, "seed": 7, "shard_images": 8}
    )
    done = client.submit(request, PROMPTS)
    assert ended(client, done.id).state == "done"
    assert images_in(stack, done.id, tmp_path) == list(range(64))
    assert sorted(renderer_pids(queue)) == before
    told = [one.info for one in queue.renderers()]
    refitted = {one["actor"] for one in told if one["refit"]}
    assert {row["worker"].rpartition(".")[0] for row in table_rows(tmp_path)} <= refitted


def test_a_killed_renderer(stack: Stack, client: Client, queue: ShardQueue, tmp_path: Path) -> None:
    done = client.submit(JobRequest(repeats=32, seed=2, shard_images=8), PROMPTS)
    wait_until(lambda: some_done(client, done.id), "the first shard", 120)
    os.kill(renderer_pids(queue)[0], signal.SIGKILL)
    assert ended(client, done.id).state == "done"
    assert images_in(stack, done.id, tmp_path) == list(range(128))


def test_a_killed_scheduler(
    stack: Stack, client: Client, queue: ShardQueue, tmp_path: Path
) -> None:
    """The renderers go on without it; the next one finds them, and finishes the job."""
    done = client.submit(JobRequest(repeats=16, seed=3, shard_images=8), PROMPTS)
    wait_until(lambda: some_done(client, done.id), "the first shard", 120)
    before = set(renderer_pids(queue))
    mark = stack.state.processes["scheduler"]
    process = psutil.Process(mark.pid)
    process.kill()
    wait_until(lambda: not process.is_running() or process.status() == "zombie", "its end")
    wait_until(lambda: client.job(done.id).done == 64, "the renderers to go on alone", 120)
    assert client.job(done.id).state == "finishing"
    Stack.start(stack.home, 2, SAY)
    assert ended(client, done.id).state == "done"
    assert images_in(stack, done.id, tmp_path) == list(range(64))
    assert set(renderer_pids(queue)) == before


def test_bad_weights_burn_no_shard(stack: Stack, client: Client, queue: ShardQueue) -> None:
    """A job whose engine cannot be loaded waits, says why, and stays whole."""
    request = JobRequest.model_validate({"recipe": {"model": "sd15"}})
    done = client.submit(request, PROMPTS)
    wait_until(lambda: "cannot start" in client.job(done.id).reason, "the reason", 120)
    assert "FEWSTEP_HUB_ACCESS" in client.job(done.id).reason
    record = queue.job(done.id)
    assert record is not None
    assert (record.cursor, record.failed_images) == (0, 0)
    client.cancel(done.id)
    assert ended(client, done.id).state == "cancelled"


def test_the_example_runs(stack: Stack) -> None:
    """`examples/submit_and_watch.py`, as a user runs it."""
    example = Path(__file__).parents[2] / "examples" / "submit_and_watch.py"
    found = subprocess.run(
        [sys.executable, str(example)],
        env={**os.environ, "FEWSTEP_API_URL": stack.settings.api_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr
    assert "done: 8 of 8 images" in found.stdout
    assert "train/00000.tar" in found.stdout


def test_a_scheduler_that_is_told_to_stop_ends_its_step(stack: Stack) -> None:
    """Ray's own handler of SIGTERM would end it in the middle of whatever it does."""
    process = psutil.Process(Stack.attach(stack.home).state.processes["scheduler"].pid)
    process.terminate()
    wait_until(lambda: not process.is_running() or process.status() == "zombie", "its end", 60)
    assert "stopping signal=15" in log_of(stack.home, "scheduler").read_text()
