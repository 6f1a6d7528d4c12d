"""Faults of the way to Redis: replies lost, nothing passing at all."""

import time

from tests.chaos.bench import Fault
from tests.chaos.one_site import Site
from tests.chaos.proxy import DropReply
from tests.chaos.striking import begun, last
from tests.servers import wait_until

#: What the queue's ops are called in a request, as Redis' protocol writes them.
OPS = rb"\r\n(claim|renew|win|done|fail)\r\n"


def replies_lost(site: Site) -> None:
    """Redis carries a request out and its reply never arrives, again and again."""
    site.scheduler()
    for name in ("a", "b"):
        site.line(name).redis.drop = DropReply(OPS, times=10)
        site.renderer(name)
    site.submit()
    site.wait_for_progress()
    site.recovery.until_progress(site.progress, time.monotonic())
    site.wait_for_end()
    site.recovery.injected += sum(site.line(name).redis.hits for name in ("a", "b"))


def black_hole(site: Site) -> None:
    """Nothing passes to or from Redis for two leases; what was sent arrives afterwards."""
    begun(site)
    with site.recovery.outage(site.progress):
        for proxy in site.redis_proxies():
            proxy.hold = True
        last(2 * site.lease_ms / 1e3)
        site.heal()


def black_hole_before_done(site: Site) -> None:
    """The shard lies in the store, and the word that it does is on its way for two leases."""
    site.scheduler()
    site.submit()
    trap = site.trap("manifest_put", "stop")
    child = site.renderer("a", trap)
    wait_until(child.stopped, "the commit", 180)
    struck, since = site.recovery.held_by("a"), time.monotonic()
    site.line("a").redis.hold = True
    child.resume()
    site.renderer("b")
    site.recovery.after_death(struck, since)
    site.heal()


FAULTS = [
    Fault(
        "19",
        "replies of Redis are lost",
        "the proxy resets instead of replying, 10 times each renderer",
        replies_lost,
        short=True,
    ),
    Fault(
        "20",
        "Redis is a black hole",
        "the proxy holds everything back for two leases",
        black_hole,
        short=True,
    ),
    Fault(
        "20",
        "a black hole between commit and done",
        "the proxy holds `done` back for longer than the lease",
        black_hole_before_done,
    ),
]
