"""What several faults need: a job that is under way, time for the fault, and ways that break."""

import threading
import time
from collections.abc import Callable, Sequence

from tests.chaos.bench import up
from tests.chaos.one_site import Line, Site
from tests.chaos.proxy import DropReply, Proxy
from tests.servers import wait_until


def last(seconds: float) -> None:
    """A fault takes its time."""
    threading.Event().wait(seconds)


def begun(site: Site, *, restart: bool = False) -> None:
    """Everyone is at work and the first shard is done."""
    up(site, restart=restart)
    site.wait_for_progress()


def shut(site: Site, proxies: Sequence[Proxy], shut_one: Callable[[Proxy], None], s: float) -> None:
    """`shut_one` is done to these ways in the middle of a job; after `s` seconds all is healed."""
    with site.recovery.outage(site.progress):
        for proxy in proxies:
            shut_one(proxy)
        last(s)
        site.heal()


def held(proxy: Proxy) -> None:
    """A black hole."""
    proxy.hold = True


def replies_reset(site: Site, way: Callable[[Line], Proxy], drop: Callable[[], DropReply]) -> None:
    """What a and b ask on that way is carried out and its reply never arrives, some times."""
    site.scheduler()
    proxies = [way(site.line(name)) for name in ("a", "b")]
    for proxy in proxies:
        proxy.drop = drop()
    for name in ("a", "b"):
        site.renderer(name)
    site.submit()
    site.wait_for_progress()
    site.recovery.until_progress(site.progress, time.monotonic())
    site.wait_for_end()
    site.recovery.injected += sum(proxy.hits for proxy in proxies)


def cut_off_at(site: Site, point: str, ways: Callable[[Line], Sequence[Proxy]]) -> None:
    """At that point of a commit a's ways become black holes, until b has its work; then it is back.

    What a sent meanwhile arrives then: it is a zombie.
    """
    site.scheduler()
    site.submit()
    child = site.renderer("a", site.trap(point, "stop"))
    wait_until(child.stopped, "the commit", 180)
    struck, since = site.recovery.held_by("a"), time.monotonic()
    for proxy in ways(site.line("a")):
        held(proxy)
    child.resume()
    site.renderer("b")
    site.recovery.after_death(struck, since)
    site.heal()
