"""Faults of the store and of the way to it."""

import time
from functools import partial

from tests.chaos.bench import up
from tests.chaos.fault import Fault
from tests.chaos.machine import filter_missing, lossy
from tests.chaos.one_site import Site
from tests.chaos.proxy import DropReply, Proxy, Refuse
from tests.chaos.striking import begun, cut_off_at, held, last, replies_reset, shut
from tests.s3_servers import WEAK
from tests.servers import wait_until

#: Writing a tar, staged or final, in whatever form the client asks for it.
TAR = rb"PUT /[^ ]*tar"


def refused(site: Site, status: int, code: str) -> None:
    """The store answers every request with an error for longer than a lease."""

    def refuse(proxy: Proxy) -> None:
        proxy.refuse = Refuse(status, code)

    begun(site)
    shut(site, site.s3_proxies(), refuse, 1.5 * site.lease_ms / 1e3)
    site.wait_for_end()
    assert sum(proxy.hits for proxy in site.s3_proxies()), "nobody asked the store meanwhile"


def keys_expire(site: Site) -> None:
    """The store refuses the renderers' keys: they stop, the job stays whole, nothing is counted."""
    site.scheduler()
    site.submit()
    for name in ("a", "b"):
        site.renderer(name, restart=True)
    site.wait_for_progress()
    with site.recovery.outage(site.progress):
        for name in ("a", "b"):
            site.line(name).s3.refuse = Refuse(403, "ExpiredToken")
        wait_until(lambda: bool(site.children["a"].fallen), "the renderer to stop", 180)
        last(1.0)
        site.heal()
        # Those that found no keys at their start left by themselves: the scheduler starts others.
        site.renderer("c", restart=True)
    site.wait_for_end()
    for name in ("a", "b", "c"):
        site.children[name].restart = False
    assert len(site.children["a"].fallen) <= 3, "a renderer without keys spins"
    assert not site.crashed(), "wrong keys were counted against a unit"


def away(site: Site) -> None:
    """Connections are reset and new ones refused, for longer than a lease."""

    def reset(proxy: Proxy) -> None:
        proxy.away = True
        proxy.reset()

    begun(site)
    shut(site, site.s3_proxies(), reset, 1.5 * site.lease_ms / 1e3)


def hangs(site: Site) -> None:
    """The store takes requests and never answers, for longer than a lease."""
    begun(site)
    shut(site, site.s3_proxies(), held, 1.5 * site.lease_ms / 1e3)


def reply_lost(site: Site) -> None:
    """The store keeps the tar and its 200 never arrives, twice each renderer."""
    replies_reset(site, lambda line: line.s3, lambda: DropReply(TAR, b"HTTP/1.1 200", times=2))


def killed_while_writing(site: Site) -> None:
    """The server is killed while a tar is on its way, and started again on its files."""
    site.scheduler()
    site.submit()
    trap = site.trap("encoded", "stop")
    child = site.renderer("a", trap)
    wait_until(child.stopped, "the commit", 180)
    site.line("a").s3.rate = 10_000
    with site.recovery.outage(site.progress):
        child.resume()
        # Some of it is on its way by then.
        last(1.0)
        site.s3.kill()
        site.heal()
        site.s3.start()


def slow(site: Site) -> None:
    """A tar takes longer than a lease to write: the lease is kept, no renderer runs ahead."""
    site.scheduler()
    for name in ("a", "b"):
        site.line(name).s3.rate = 12_000
        # Slow is not hanging: as in production, where a minute is waited for each answer.
        site.renderer(name, env={"FEWSTEP_CHAOS_READ_TIMEOUT_S": "60"})
    site.submit()
    site.recovery.injected += 1
    site.recovery.until_progress(site.progress, time.monotonic())
    site.wait_for_end(seconds=240)
    assert all(one.attempt == 0 for one in site.manifests()), "a slow upload lost its lease"


def packets_lost(site: Site, by: str) -> None:
    """Three in ten packets are lost on every way."""
    if by == "nft":
        with lossy([site.redis.port, site.s3.port], 30):
            _through_loss(site)
        return
    for name in ("a", "b", "scheduler"):
        site.line(name).redis.loss = site.line(name).s3.loss = 0.3
    _through_loss(site)


def _through_loss(site: Site) -> None:
    up(site)
    site.wait_for_progress()
    with site.recovery.outage(site.progress):
        pass
    site.wait_for_end(seconds=240)


def partition(site: Site) -> None:
    """One renderer reaches nobody for longer than its lease; then it is back, a zombie."""
    cut_off_at(site, "encoded", lambda line: [line.redis, line.s3])


FAULTS = [
    Fault(
        "23",
        "the store answers 503",
        "the proxy answers every request with SlowDown, for one and a half leases",
        partial(refused, status=503, code="SlowDown"),
    ),
    Fault(
        "24",
        "the store resets connections",
        "RST and refusal at the proxy, for one and a half leases",
        away,
    ),
    Fault(
        "24",
        "the store hangs",
        "the proxy holds everything back for one and a half leases",
        hangs,
    ),
    Fault(
        "25",
        "the store's 200 is lost",
        "the proxy resets after the tar was kept, twice each renderer",
        reply_lost,
        short=True,
    ),
    Fault("26", "the store refuses the keys", "the proxy answers 403 ExpiredToken", keys_expire),
    Fault(
        "28",
        "the store is killed while a tar is written",
        "SIGKILL of the S3 server during a slow upload, then started again",
        killed_while_writing,
        stores=(WEAK,),
    ),
    Fault(
        "29",
        "a slow store",
        "12 kB/s at the proxy: a tar takes longer than a lease",
        slow,
        note="nothing stops here: until the first shard is written, at that speed",
    ),
    Fault(
        "30",
        "three in ten packets lost",
        "nft drops them, to and from both servers",
        partial(packets_lost, by="nft"),
        needs=filter_missing,
    ),
    Fault(
        "30",
        "three in ten packets late",
        "the proxy delays chunks as retransmission does",
        partial(packets_lost, by="proxy"),
    ),
    Fault(
        "31",
        "a renderer's node is cut off",
        "its proxies hold everything back until others have its work, then let it through",
        partition,
    ),
]
