"""Faults of the way to Redis: replies lost, nothing passing at all."""

from tests.chaos.fault import Fault
from tests.chaos.one_site import Site
from tests.chaos.proxy import DropReply
from tests.chaos.striking import begun, cut_off_at, held, replies_reset, shut

#: What the queue's ops are called in a request, as Redis' protocol writes them.
OPS = rb"\r\n(claim|renew|win|done|fail)\r\n"


def replies_lost(site: Site) -> None:
    """Redis carries a request out and its reply never arrives, again and again."""
    replies_reset(site, lambda line: line.redis, lambda: DropReply(OPS, times=10))


def black_hole(site: Site) -> None:
    """Nothing passes to or from Redis for two leases; what was sent arrives afterwards."""
    begun(site)
    shut(site, site.redis_proxies(), held, 2 * site.lease_ms / 1e3)


def black_hole_before_done(site: Site) -> None:
    """The shard lies in the store, and the word that it does is on its way until b has the unit."""
    cut_off_at(site, "manifest_put", lambda line: [line.redis])


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
