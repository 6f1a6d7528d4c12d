"""`make soak MINUTES=30`: jobs and faults at random, from a seed that makes the same plan again."""

import argparse
import random
import sys
import time
from collections.abc import Callable
from signal import SIGCONT, SIGKILL, SIGSTOP

from jobs.job import Job
from tests.chaos.bench import Bench, bench
from tests.chaos.examine import examine
from tests.chaos.faults_redis_way import OPS
from tests.chaos.one_site import Site
from tests.chaos.proxy import DropReply, Refuse
from tests.chaos.seats import redis_versions
from tests.chaos.striking import last
from tests.chaos.world import request
from tests.s3_servers import STRICT, WEAK
from tests.servers import wait_until

Dice = random.Random
RENDERERS = ("a", "b")


def kill_renderer(site: Site, dice: Dice) -> None:
    """Ray starts it again."""
    site.children[dice.choice(RENDERERS)].signal(SIGKILL)


def freeze_renderer(site: Site, dice: Dice) -> None:
    """For about a lease."""
    child = site.children[dice.choice(RENDERERS)]
    child.signal(SIGSTOP)
    last(dice.uniform(1.0, 5.0))
    child.signal(SIGCONT)


def kill_scheduler(site: Site, dice: Dice) -> None:
    """Another one is started."""
    site.kill("scheduler")
    site.expected_dead.discard("scheduler")
    site.scheduler()


def kill_redis(site: Site, dice: Dice) -> None:
    """It comes back from its file."""
    site.redis.kill()
    last(dice.uniform(0.1, 2.0))
    site.redis.start()


def hold(site: Site, dice: Dice) -> None:
    """A way is a black hole for up to two leases."""
    proxies = dice.choice([site.redis_proxies(), site.s3_proxies()])
    chosen = dice.choice([proxies, [dice.choice(proxies)]])
    for proxy in chosen:
        proxy.hold = True
    last(dice.uniform(0.5, 6.0))
    for proxy in chosen:
        proxy.hold = False


def reset(site: Site, dice: Dice) -> None:
    """Every connection is reset."""
    for proxy in (*site.redis_proxies(), *site.s3_proxies()):
        proxy.reset()


def store_busy(site: Site, dice: Dice) -> None:
    """503 from the store."""
    for proxy in site.s3_proxies():
        proxy.refuse = Refuse(503, "SlowDown")
    last(dice.uniform(0.5, 4.0))
    for proxy in site.s3_proxies():
        proxy.refuse = None


def lose_replies(site: Site, dice: Dice) -> None:
    """The next replies of Redis and of the store do not arrive."""
    line = site.line(dice.choice(RENDERERS))
    line.redis.drop = DropReply(OPS, times=dice.randint(1, 4))
    line.s3.drop = DropReply(rb"PUT /", b"HTTP/1.1 200", times=dice.randint(1, 3))


def pause(site: Site, dice: Dice) -> None:
    """A job is paused and resumed."""
    job_id = dice.choice(sorted(site.outcomes))
    site.queue.state(job_id, "pause")
    last(dice.uniform(0.2, 2.0))
    site.queue.state(job_id, "run")


def cancel(site: Site, dice: Dice) -> None:
    """A job is cancelled, unless it was too late."""
    job_id = dice.choice(sorted(site.outcomes))
    if site.queue.state(job_id, "cancel") == "cancel":
        site.outcomes[job_id] = "cancelled"


STRIKES: list[Callable[[Site, Dice], None]] = [
    *(kill_renderer, freeze_renderer, kill_scheduler, kill_redis, hold, reset),
    *(store_busy, lose_replies, pause, cancel),
]


def one_round(made: Bench, dice: Dice, say: Callable[[str], None]) -> bool:
    """A few jobs and a few faults on servers of their own; whether all was as wanted."""
    pictures = made.undisturbed()
    redis, store = dice.choice(redis_versions()), dice.choice([STRICT, WEAK])
    plan = [(dice.choice(STRIKES), dice.uniform(0.0, 2.0)) for _ in range(dice.randint(2, 6))]
    jobs: list[Job] = []
    with made.site(redis, store, name="soak") as site:
        site.scheduler()
        for name in RENDERERS:
            site.renderer(name, restart=True)
        for _ in range(dice.randint(1, 3)):
            wanted = request(dice.choice([4, 8, 12]), dice.randint(3, 5))
            jobs.append(site.submit(wanted=wanted))
            site.outcomes[jobs[-1].id] = "done"
        for strike, wait in plan:
            last(wait)
            strike(site, dice)
        site.heal()
        for job in jobs:
            wait_until(lambda job=job: site.record(job).state == "closed", "a job's end", 300)
        wrong = site.stop()
        verdict = examine(site, pictures, jobs)
        verdict.otherwise += wrong
        site.keep = not verdict.clean
        names = ", ".join(strike.__name__ for strike, _ in plan)
        ended = ", ".join(sorted(site.outcomes.values()))
        say(f"{'ok ' if verdict.clean else 'BAD'} Redis {redis}, {store}: {names}; {ended}")
        if not verdict.clean:
            say(f"    {verdict}\n    see {site.folder}")
        return verdict.clean


def main() -> int:
    """Rounds until the time is over, or one was not as wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    chosen = parser.parse_args()
    rounds = 0
    with bench() as made:
        made.undisturbed()
        end = time.monotonic() + 60 * chosen.minutes
        while time.monotonic() < end:
            seed = chosen.seed + rounds
            rounds += 1
            print(f"round {rounds}, seed {seed} (again: make soak SEED={seed})", flush=True)
            if not one_round(made, random.Random(seed), lambda text: print(text, flush=True)):
                return 1
    print(f"{rounds} rounds, nothing lost, doubled, wrong or left over")
    return 0


if __name__ == "__main__":
    sys.exit(main())
