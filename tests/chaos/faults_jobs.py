"""Faults around a job: bad pictures, bad weights, full disks, submitting and cancelling."""

import shutil
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from resource import RLIMIT_NOFILE, prlimit

from tests.chaos.bench import up
from tests.chaos.fault import Fault
from tests.chaos.machine import fill, root_missing, small_disk
from tests.chaos.one_site import Site
from tests.chaos.striking import last
from tests.chaos.world import prompt, prompts, request
from tests.servers import wait_until
from workers import tiny


def not_a_number(site: Site, times: int) -> None:
    """A picture comes out as NaN: once, or whatever is tried."""
    trap = site.trap("batch", "nan", times=times, prompt=prompt(13))
    site.scheduler()
    site.submit()
    site.renderer("a", trap)
    site.wait_for_trap(trap)
    site.recovery.injected += 1
    site.recovery.until_progress(site.progress, time.monotonic())
    site.given_up = 1 if times > 1 else 0


def weights_damaged(site: Site) -> None:
    """The weights on the node are cut off: the renderer says so and burns nothing; then mended."""
    folder = site.folder / "weights"
    shutil.copytree(tiny.MODEL_DIR, folder)
    file = max(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    site.scheduler()
    site.submit()
    with site.recovery.outage(site.progress):
        env = {"FEWSTEP_CHAOS_MODEL_DIR": str(folder)}
        child = site.renderer("a", load=True, restart=True, env=env)
        wait_until(lambda: _says_broken(site), "the renderer to say what is wrong", 180)
        assert site.record().cursor == 0, "a shard was burned"
        file.write_bytes(whole)
        # It leaves by itself, with status 0: the scheduler would start another.
        child.wait()
        site.renderer("b", load=True, env=env)


def _says_broken(site: Site) -> bool:
    return any(
        one.info["state"] == "broken" and one.info["error"] for one in site.queue.renderers()
    )


def temporary_folder_full(site: Site) -> None:
    """A node's temporary folder is full: its renderer costs no image anything."""
    site.scheduler()
    with small_disk(site.tmp("a"), "100m") as folder:
        ballast = fill(folder)
        site.renderer("a", restart=True)
        site.submit()
        with site.recovery.outage(site.progress):
            last(4.0)
            ballast.unlink()
        site.wait_for_end()
        site.children["a"].restart = False
        site.children["a"].signal(15)
        site.children["a"].wait()


def no_descriptors(site: Site) -> None:
    """A renderer may open no more files for a while."""
    up(site, "a")
    site.wait_for_progress()
    child = site.children["a"]
    child.restart = True
    before = prlimit(child.pid, RLIMIT_NOFILE)
    with site.recovery.outage(site.progress):
        prlimit(child.pid, RLIMIT_NOFILE, (5, before[1]))
        last(3.0)
        if child.pid_lives():
            prlimit(child.pid, RLIMIT_NOFILE, before)
    site.wait_for_end()
    child.restart = False


def submitter_killed(site: Site) -> None:
    """Killed between the job's file and the queue; the client sends the same again."""
    site.scheduler()
    site.renderer("a")
    key = uuid.uuid4().hex
    order = {"request": request().model_dump_json(), "prompts": prompts(), "key": key}
    order["now_ms"] = 1_700_000_000_000
    first = site.submitter("first", die=True, **order)
    assert first.wait() == -9
    assert site.queue.open_jobs() == []
    site.recovery.injected += 1
    since = time.monotonic()
    assert site.submitter("again", **order).wait() == 0
    found = site.queue.open_jobs()
    assert len(found) == 1, found
    site.adopt(found[0].job_id)
    site.recovery.until_progress(site.progress, since)


def many_equal_submits(site: Site) -> None:
    """Fifty clients send the same job with the same key at once."""
    site.scheduler()
    site.renderer("a")
    key, start = uuid.uuid4().hex, threading.Barrier(50)

    def send(_: int) -> str:
        start.wait()
        return site.submit(key=key).id

    with ThreadPoolExecutor(50) as clients:
        ids = set(clients.map(send, range(50)))
    assert len(ids) == 1, ids
    assert len(site.queue.open_jobs()) == 1
    site.recovery.injected += 1
    since = time.monotonic()
    site.recovery.until_progress(site.progress, since)


def cancelled_while_uploading(site: Site) -> None:
    """Cancel meets a tar that is on its way: no dataset, whole shards only, leases end."""
    site.scheduler()
    site.submit()
    child = site.renderer("a", site.trap("encoded", "stop"))
    wait_until(child.stopped, "the commit", 180)
    site.line("a").s3.rate = 30_000
    child.resume()
    site.recovery.injected += 1
    since = time.monotonic()
    site.queue.state(site.the_job.id, "cancel")
    site.outcome = "cancelled"
    wait_until(lambda: not site.queue.leases(), "every lease to end", 120)
    site.recovery.seconds.append(time.monotonic() - since)


FAULTS = [
    Fault(
        "9",
        "a picture is not a number, once",
        "the decoder returns NaN",
        partial(not_a_number, times=1),
    ),
    Fault(
        "9",
        "a picture is not a number, always",
        "the decoder returns NaN",
        partial(not_a_number, times=1000),
    ),
    Fault(
        "39",
        "damaged weights",
        "half of a safetensors file is cut off, later it is whole again",
        weights_damaged,
    ),
    Fault(
        "40",
        "the temporary folder is full",
        "a tmpfs without room as TMPDIR",
        temporary_folder_full,
        needs=root_missing,
    ),
    Fault(
        "41",
        "killed between the store and the queue while submitting",
        "SIGKILL, then sent again",
        submitter_killed,
        short=True,
    ),
    Fault("42", "fifty equal submits at once", "threads behind a barrier", many_equal_submits),
    Fault(
        "43",
        "cancelled during an upload",
        "a slow proxy, and cancel",
        cancelled_while_uploading,
        short=True,
    ),
    Fault("44", "no file descriptors left", "prlimit --nofile 5 for 3 s", no_descriptors),
]
