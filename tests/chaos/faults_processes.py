"""Faults of processes: killed, frozen, hanging, out of memory, at every point of a shard's life."""

import time
from functools import partial
from signal import SIGTERM

from tests.chaos.bench import up
from tests.chaos.fault import Fault
from tests.chaos.machine import cgroups_missing, small_cgroup
from tests.chaos.one_site import Site
from tests.chaos.world import prompt
from tests.s3_servers import WEAK
from tests.servers import wait_until


def killed_at(site: Site, point: str) -> None:
    """Renderer a is killed by SIGKILL at a point of its work; b takes over after the lease."""
    site.expected_dead.add("a")
    site.scheduler()
    site.submit()
    child = site.renderer("a", site.trap(point, "kill"))
    child.wait()
    struck = site.recovery.held_by("a")
    site.renderer("b")
    site.recovery.after_death(struck, child.gone_at)


def killed_and_restarted(site: Site) -> None:
    """The same actor is started again at once, as Ray does, and ends its predecessor's leases."""
    trap = site.trap("step", "kill", times=2)
    site.scheduler()
    site.submit()
    child = site.renderer("a", trap, restart=True)
    for times in (1, 2):
        site.wait_for_trap(trap, times)
        since = time.monotonic()
        site.recovery.after_death(site.recovery.held_by("a"), since)
    child.restart = False


def frozen_at(site: Site, point: str) -> None:
    """A zombie: a stands still at a point until its units are another's and done, then goes on."""
    site.scheduler()
    site.submit()
    child = site.renderer("a", site.trap(point, "stop"))
    wait_until(child.stopped, "the renderer to stand still", 180)
    struck, since = site.recovery.held_by("a"), time.monotonic()
    site.renderer("b")
    site.recovery.after_death(struck, since)
    for one in struck:
        wait_until(lambda one=one: site.recovery.settled(one.job_id, one.unit), "its units", 180)
    child.resume()


def frozen_together(site: Site, first: str, second: str) -> None:
    """Two hold the same unit's output: a wakes while b stands at a point of the same commit."""
    site.scheduler()
    site.submit(images=8)
    zombie = site.renderer("a", site.trap(first, "stop"))
    wait_until(zombie.stopped, "the first to stand still", 180)
    struck, since = site.recovery.held_by("a"), time.monotonic()
    heir = site.renderer("b", site.trap(second, "stop"))
    wait_until(heir.stopped, "the second to stand still", 180)
    site.recovery.after_death(struck, since)
    zombie.resume()
    # It has said its word once it holds nothing; only then may the other go on.
    wait_until(lambda: "lease_lost" in log(site, "a") or site.progress() > 0, "the zombie", 180)
    heir.resume()


def log(site: Site, name: str) -> str:
    """What a process has logged."""
    return (site.folder / f"{name}.log").read_text()


def hangs(site: Site) -> None:
    """The device never answers: the watchdog ends the process, the next one goes on."""
    trap = site.trap("step", "hang")
    site.scheduler()
    site.submit()
    child = site.renderer("a", trap, restart=True, env={"FEWSTEP_CHAOS_STALL_S": "1"})
    site.wait_for_trap(trap)
    site.recovery.after_death(site.recovery.held_by("a"), time.monotonic())
    child.restart = False


def out_of_memory(site: Site) -> None:
    """The kernel ends a renderer that outgrows its control group."""
    site.expected_dead.add("a")
    site.scheduler()
    child = site.renderer("a", site.trap("step", "balloon"))
    with small_cgroup(child.pid, 64 << 20) as group:
        site.submit()
        assert child.wait() == -9
        assert group.kills() > 0, "not the kernel's doing"
    struck = site.recovery.held_by("a")
    site.renderer("b")
    site.recovery.after_death(struck, child.gone_at)


def device_fails(site: Site, act: str) -> None:
    """The device fails once under a; Ray starts it again where it leaves."""
    trap = site.trap("step", act)
    site.scheduler()
    site.submit()
    child = site.renderer("a", trap, restart=True)
    site.wait_for_trap(trap)
    site.recovery.injected += 1
    site.recovery.until_progress(site.progress, time.monotonic())
    site.wait_for_end()
    child.restart = False
    assert not site.crashed(), "the device's fault was counted against a unit"


def rolling(site: Site) -> None:
    """Every renderer is told to leave and replaced while a job runs; nothing may be counted."""
    up(site)
    for number, name in enumerate(("a", "b"), start=1):
        site.wait_for_progress(8 * number)
        since = time.monotonic()
        site.recovery.injected += 1
        site.children[name].signal(SIGTERM)
        site.renderer(f"{name}-next")
        assert site.children[name].wait() == 0, "a drained renderer ends with 0"
        site.recovery.seconds.append(time.monotonic() - since)
    site.wait_for_end()
    assert not site.crashed(), "a drain was counted as a crash"


def poison(site: Site) -> None:
    """An image that ends whoever renders it: it costs itself, and the others are made."""
    trap = site.trap("batch", "exit", times=1000, prompt=f"{prompt(13)}")
    site.scheduler()
    site.submit()
    started = time.monotonic()
    for name in ("a", "b"):
        site.renderer(name, trap, restart=True)
    site.wait_for_end(seconds=240)
    site.given_up = 1
    site.recovery.injected += trap.struck
    assert site.record().dead_images == 1
    assert trap.struck <= 16, f"{trap.struck} processes died of one image"
    site.recovery.seconds.append((time.monotonic() - started) / trap.struck)


def writer_breaks(site: Site, point: str) -> None:
    """Writing a file fails at its end: nothing of it counts, and the unit is made again."""
    trap = site.trap(point, "bug")
    site.scheduler()
    site.submit()
    site.renderer("a", trap)
    site.wait_for_trap(trap)
    site.recovery.injected += 1
    site.recovery.until_progress(site.progress, time.monotonic())


def scheduler_killed(site: Site) -> None:
    """The renderers go on without it; the next one finishes the job."""
    up(site)
    site.wait_for_progress()
    site.kill("scheduler")
    site.recovery.injected += 1
    wait_until(lambda: site.record().accounted, "the renderers to go on alone", 180)
    since = time.monotonic()
    site.expected_dead.discard("scheduler")
    site.scheduler()
    site.wait_for_end()
    site.recovery.seconds.append(time.monotonic() - since)


def _killed(row: str, name: str, point: str, **more: object) -> Fault:
    how = f"SIGKILL at the point `{point}`"
    return Fault(row, f"renderer killed {name}", how, partial(killed_at, point=point), **more)  # type: ignore[arg-type]


def _frozen(name: str, point: str, **more: object) -> Fault:
    how = f"SIGSTOP at the point `{point}` for longer than the lease, then SIGCONT"
    return Fault("4", f"renderer frozen {name}", how, partial(frozen_at, point=point), **more)  # type: ignore[arg-type]


def _together(first: str, second: str, **more: object) -> Fault:
    return Fault(
        "27",
        f"store without conditions: two commit one unit, at `{first}` and `{second}`",
        "SIGSTOP both, SIGCONT the older, then the younger",
        partial(frozen_together, first=first, second=second),
        stores=(WEAK,),
        **more,  # type: ignore[arg-type]
    )


FAULTS = [
    _killed("1", "in the middle of a batch", "step"),
    Fault(
        "1",
        "renderer killed, and started again as Ray does",
        "SIGKILL in the middle of a batch, twice; the same name is started again",
        killed_and_restarted,
    ),
    _killed("2", "after its tar was written", "tar_put", short=True),
    _killed("2", "after its tar was staged", "staged", stores=(WEAK,)),
    _killed("2", "after its tar had won", "won", stores=(WEAK,)),
    _killed("3", "after the parquet file", "table_put"),
    _killed("3", "after the manifest, before done", "manifest_put"),
    _frozen("in the middle of a batch", "step"),
    _frozen("before its tar is written", "encoded", short=True),
    _frozen("after its tar was written", "tar_put"),
    _frozen("before done is said", "done"),
    Fault(
        "5",
        "the device hangs",
        "a step that never ends; the watchdog's time is set to 1 s",
        hangs,
        note="plus the watchdog's time",
    ),
    Fault(
        "6",
        "killed by the kernel, out of memory",
        "a memory control group of 64 MB",
        out_of_memory,
        needs=cgroups_missing,
    ),
    Fault(
        "7",
        "device out of memory",
        "the net raises torch.OutOfMemoryError once",
        partial(device_fails, act="out_of_memory"),
    ),
    Fault(
        "8",
        "the device's context is broken",
        "the net raises a device-side assert once",
        partial(device_fails, act="sticky"),
    ),
    _together("encoded", "staged"),
    _together("staged", "won", short=True),
    _together("won", "table_put"),
    _together("tar_put", "table_put"),
    Fault(
        "35",
        "scheduler killed",
        "SIGKILL; renderers go on alone, another scheduler finishes",
        scheduler_killed,
    ),
    Fault("37", "rolling restart", "SIGTERM to each renderer in turn", rolling),
    Fault(
        "38",
        "an image that kills whoever renders it",
        "os._exit at its batch, each time",
        poison,
        redis=("6.2",),
        note="per death, back-offs included",
    ),
    Fault(
        "45",
        "writing a tar fails at its end",
        "the writer raises after the last member",
        partial(writer_breaks, point="tar_closed"),
        short=True,
    ),
    Fault(
        "45",
        "writing a parquet file fails at its end",
        "the writer raises after the last row",
        partial(writer_breaks, point="table_closed"),
    ),
]
