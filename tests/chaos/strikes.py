"""Strikes of the soak: each is rolled whole, with all its numbers, before anything runs."""

import random
from collections.abc import Callable, Sequence
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import NamedTuple

from jobs.control import rank, steer
from tests.chaos.faults_redis_memory import cut_tails
from tests.chaos.faults_redis_way import OPS
from tests.chaos.one_site import Line, Site
from tests.chaos.proxy import DropReply, Proxy, Refuse
from tests.chaos.striking import last
from tests.servers import wait_until

Dice = random.Random
RENDERERS = ("a", "b")
#: Who has a way to the servers, and which servers those are.
_USERS = (*RENDERERS, "scheduler")


class Strike(NamedTuple):
    """Something that is done to a site; `text` says all that there is to know of it."""

    text: str
    act: Callable[[Site], None]


def kill_renderer(dice: Dice) -> Strike:
    """Ray starts it again."""
    name = dice.choice(RENDERERS)

    def act(site: Site) -> None:
        child = site.children[name]
        before = len(child.fallen)
        child.signal(SIGKILL)
        wait_until(lambda: len(child.fallen) > before or child.gone.is_set(), "its death", 60)

    return Strike(f"kill {name}", act)


def freeze_renderer(dice: Dice) -> Strike:
    """For about a lease."""
    name, seconds = dice.choice(RENDERERS), dice.uniform(1.0, 5.0)

    def act(site: Site) -> None:
        site.children[name].signal(SIGSTOP)
        last(seconds)
        site.children[name].signal(SIGCONT)

    return Strike(f"freeze {name} {seconds:.1f} s", act)


def drain_renderer(dice: Dice) -> Strike:
    """It leaves, and another one comes."""
    name = dice.choice(RENDERERS)

    def act(site: Site) -> None:
        before = site.children[name]
        restart, before.restart = before.restart, False
        # Started again by a trap's kill just now, it would not hear that it is to go.
        wait_until(before.is_something, name, 60)
        before.signal(SIGTERM)
        before.wait()
        before.restart = restart
        site.again(name)

    return Strike(f"drain {name}", act)


def kill_scheduler(dice: Dice) -> Strike:
    """Another one is started."""

    def act(site: Site) -> None:
        site.kill("scheduler")
        site.expected_dead.discard("scheduler")
        site.scheduler(restart=True)

    return Strike("kill the scheduler", act)


def kill_redis(dice: Dice) -> Strike:
    """It comes back from its file, which may have lost its end."""
    seconds, kept = dice.uniform(0.1, 2.0), dice.choice([1.0, 1.0, 0.9, 0.5])

    def act(site: Site) -> None:
        site.redis.kill()
        cut_tails(site.redis.folder, kept)
        last(seconds)
        site.redis.start()

    return Strike(f"kill Redis {seconds:.1f} s, {kept:.0%} of its file kept", act)


def empty_redis(dice: Dice) -> Strike:
    """It forgets everything."""
    return Strike("FLUSHALL", lambda site: site.client.flushall())


def fill_redis(dice: Dice) -> Strike:
    """It refuses whatever would grow it."""
    seconds = dice.uniform(0.5, 4.0)

    def act(site: Site) -> None:
        site.client.config_set("maxmemory", "1")
        last(seconds)
        site.client.config_set("maxmemory", "0")

    return Strike(f"Redis full {seconds:.1f} s", act)


def lock_redis(dice: Dice) -> Strike:
    """Everybody is thrown out, and the password is another one."""
    seconds = dice.uniform(0.5, 4.0)

    def act(site: Site) -> None:
        with site.redis.client() as client:
            client.config_set("requirepass", "another")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            last(seconds)
            client.config_set("requirepass", "")

    return Strike(f"another password {seconds:.1f} s", act)


def break_ways(dice: Dice) -> Strike:
    """The ways of one or all to Redis, the store or both are bad for up to two leases."""
    kind, breaks = dice.choice(list(_BROKEN.items()))
    who = dice.choice([_USERS, *((name,) for name in _USERS)])
    where, ways = dice.choice(list(_WAYS.items()))
    seconds = dice.uniform(0.5, 6.0)

    def act(site: Site) -> None:
        proxies = [proxy for name in who for proxy in ways(site.line(name))]
        for proxy in proxies:
            breaks(proxy)
        last(seconds)
        for proxy in proxies:
            proxy.heal()

    return Strike(f"{kind}: {', '.join(who)} to {where} {seconds:.1f} s", act)


_WAYS: dict[str, Callable[[Line], Sequence[Proxy]]] = {
    "Redis": lambda line: [line.redis],
    "the store": lambda line: [line.s3],
    "both": lambda line: [line.redis, line.s3],
}


def _hold(proxy: Proxy) -> None:
    proxy.hold = True


def _refuse(proxy: Proxy) -> None:
    proxy.away = True
    proxy.reset()


def _lose(proxy: Proxy) -> None:
    proxy.loss = 0.3


def _slow(proxy: Proxy) -> None:
    proxy.rate = 20_000


_BROKEN: dict[str, Callable[[Proxy], None]] = {
    "black hole": _hold,
    "refused": _refuse,
    "packets late": _lose,
    "slow": _slow,
    "reset": Proxy.reset,
}


def busy_store(dice: Dice) -> Strike:
    """503 to everybody."""
    seconds = dice.uniform(0.5, 6.0)

    def act(site: Site) -> None:
        for proxy in site.s3_proxies():
            proxy.refuse = Refuse(503, "SlowDown")
        last(seconds)
        for proxy in site.s3_proxies():
            proxy.refuse = None

    return Strike(f"503 {seconds:.1f} s", act)


def lose_replies(dice: Dice) -> Strike:
    """The next replies of Redis and of the store do not arrive."""
    name, ops, puts = dice.choice(RENDERERS), dice.randint(1, 4), dice.randint(1, 3)

    def act(site: Site) -> None:
        line = site.line(name)
        line.redis.drop = DropReply(OPS, times=ops)
        line.s3.drop = DropReply(rb"PUT /", b"HTTP/1.1 200", times=puts)

    return Strike(f"lose {ops} replies of Redis and {puts} of the store to {name}", act)


def pause(dice: Dice) -> Strike:
    """A job is paused and resumed."""
    number, seconds = dice.randrange(6), dice.uniform(0.2, 2.0)

    def act(site: Site) -> None:
        job = site.job_number(number)
        steer(site.queue, site.store, site.layout(job), job.id, "pause")
        last(seconds)
        steer(site.queue, site.store, site.layout(job), job.id, "run")

    return Strike(f"pause job {number} {seconds:.1f} s", act)


def cancel(dice: Dice) -> Strike:
    """A job is cancelled, unless it was too late."""
    number = dice.randrange(6)

    def act(site: Site) -> None:
        job = site.job_number(number)
        if steer(site.queue, site.store, site.layout(job), job.id, "cancel") == "cancel":
            site.outcomes[job.id] = "cancelled"

    return Strike(f"cancel job {number}", act)


def urge(dice: Dice) -> Strike:
    """A job is given another priority."""
    number, priority = dice.randrange(6), dice.randint(0, 9)

    def act(site: Site) -> None:
        job = site.job_number(number)
        rank(site.queue, site.store, site.layout(job), job.id, priority)

    return Strike(f"priority {priority} for job {number}", act)


STRIKES: tuple[Callable[[Dice], Strike], ...] = (
    *(kill_renderer, freeze_renderer, drain_renderer, kill_scheduler),
    *(kill_redis, empty_redis, fill_redis, lock_redis),
    *(break_ways, break_ways, busy_store, lose_replies),
    *(pause, cancel, urge),
)
