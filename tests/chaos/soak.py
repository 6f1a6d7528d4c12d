"""`make soak MINUTES=30`: jobs and faults at random, from a seed that makes the same plan again."""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jobs.job import Job
from jobs.results import outcome_of
from jobs.retry import retry_failed
from tests.chaos.bench import Bench, bench
from tests.chaos.examine import Verdict, examine
from tests.chaos.inject import Trap
from tests.chaos.later import Later, Step, grown_pictures, steps_of
from tests.chaos.one_site import Site
from tests.chaos.seats import redis_versions
from tests.chaos.strikes import RENDERERS, STRIKES, Strike
from tests.chaos.striking import last
from tests.chaos.world import TENANT, prompt, request
from tests.s3_servers import STRICT, WEAK
from tests.servers import wait_until

#: What renderers may meet at a point of their own work.
TRAPS = (
    *(("step", "out_of_memory"), ("step", "sticky"), ("tar_closed", "bug"), ("batch", "kill")),
    *(("encoded", "kill"), ("staged", "kill"), ("tar_put", "kill"), ("manifest_put", "kill")),
)
#: The image that cannot be made until it is mended, where a plan has one.
BAD = 13


@dataclass(frozen=True)
class Plan:
    """All that a seed decides: servers, jobs, what is struck when, and what is put right after."""

    redis: str
    store: str
    #: Of each job its images a shard and its priority.
    jobs: tuple[tuple[int, int], ...]
    traps: tuple[tuple[str, str], ...]
    #: Whether an image of each job cannot be made.
    bad: bool
    #: Whether images without a picture are retried at the end, `again` struck meanwhile.
    retries: bool
    first: tuple[tuple[float, Strike], ...]
    again: tuple[tuple[float, Strike], ...]
    #: What is asked of jobs that are done, one after another.
    later: tuple[Step, ...]

    def __str__(self) -> str:
        wrong = f"image {BAD} cannot be made; " if self.bad else ""
        jobs = ", ".join(f"shards of {size} at {priority}" for size, priority in self.jobs)
        traps = "".join(f"{act} at {point}; " for point, act in self.traps)
        struck = "; ".join(strike.text for _, strike in self.first)
        retried = "; ".join(["retry", *(one.text for _, one in self.again)])
        end = f"; {retried}" if self.retries else ""
        end += "".join(f"; {step}" for step in self.later)
        return f"Redis {self.redis}, {self.store}; {jobs}; {wrong}{traps}{struck}{end}"


def plan_of(seed: int, versions: Sequence[str]) -> Plan:
    """The plan that this seed makes on a machine that has these versions of Redis."""
    dice = random.Random(seed)

    def strikes(fewest: int, most: int) -> tuple[tuple[float, Strike], ...]:
        count = dice.randint(fewest, most)
        return tuple((dice.uniform(0.0, 2.0), dice.choice(STRIKES)(dice)) for _ in range(count))

    return Plan(
        redis=dice.choice(list(versions)),
        store=dice.choice([STRICT, WEAK]),
        jobs=tuple(
            (dice.choice([4, 8, 12]), dice.randint(3, 5)) for _ in range(dice.randint(1, 3))
        ),
        traps=tuple(dice.sample(TRAPS, dice.randint(0, 2))),
        bad=dice.random() < 0.5,
        retries=dice.random() < 0.7,
        first=strikes(2, 6),
        again=strikes(0, 2),
        later=steps_of(dice),
    )


def carry_out(made: Bench, plan: Plan, grown: Mapping[tuple[int, int], str]) -> tuple[Verdict, str]:
    """Everything that the plan says, on servers of its own; what was found, and where it lies.

    `grown`: row and repeat -> digest of its picture, also of those that are added.
    """
    pictures = made.undisturbed()
    with made.site(plan.redis, plan.store, name="soak") as site:
        bad = site.trap("batch", "nan", times=10_000, prompt=prompt(BAD))
        traps = [site.trap(point, act) for point, act in plan.traps]
        site.scheduler(restart=True)
        for name in RENDERERS:
            site.renderer(name, *traps, *([bad] if plan.bad else []), restart=True)
        jobs = []
        for size, priority in plan.jobs:
            jobs.append(site.submit(wanted=request(size, priority)))
            site.outcomes[jobs[-1].id] = "done"
        _strike(site, plan.first)
        for job in jobs:
            _wait(site, lambda job=job: _ended(site, job))
        site.given_up = int(plan.bad)
        if plan.retries:
            _retry(site, jobs, bad, plan)
        later = Later(site, bad, BAD if site.given_up else None, _wait)
        for step in plan.later:
            later.carry_out(step)
        for job_id, content in later.contents.items():
            site.wholes[job_id] = content.whole(grown)
        verdict = Verdict(otherwise=site.stop())
        examine(site, pictures, jobs, verdict)
        site.keep = not verdict.clean
        return verdict, str(site.folder)


def _strike(site: Site, strikes: Sequence[tuple[float, Strike]]) -> None:
    for wait, strike in strikes:
        last(wait)
        strike.act(site)
    site.heal()


def _wait(site: Site, met: Callable[[], bool]) -> None:
    def looked() -> bool:
        # Who left by itself (nothing was wrong with it) is replaced, as the scheduler does.
        for name in RENDERERS:
            if site.children[name].gone.is_set():
                site.again(name)
        return met()

    wait_until(looked, "a job's end", 300)


def _ended(site: Site, job: Job) -> bool:
    """By the store's word: a Redis that was emptied knows nothing of ended jobs."""
    layout = site.layout(job)
    said = any(site.store.head(key) is not None for key in (layout.success, layout.outcome))
    return said and not site.queue.open_jobs()


def _retry(site: Site, jobs: Sequence[Job], bad: Trap, plan: Plan) -> None:
    """Whatever has no picture is put through again, until every dataset is complete."""
    bad.mend()
    retried = []
    for job in jobs:
        ended = outcome_of(site.store, site.layout(job))
        if ended.state == "done" and not ended.failed:
            continue
        # A job whose every image was there when it was cancelled has nothing to retry.
        if ended.done == job.images:
            continue
        again = retry_failed(
            site.store,
            site.queue,
            prefix=site.direct.s3_prefix,
            tenant=TENANT,
            job_id=job.id,
            idempotency_key=f"again-{job.id}",
            unfinished=True,
            now_ms=1_700_000_000_000,
        )
        assert again.created, again
        retried.append(job)
    _strike(site, plan.again)
    for job in retried:
        ends = site.layout(job).round_ended(1)
        _wait(site, lambda ends=ends: site.store.head(ends) is not None)
        site.outcomes[job.id] = "done"
    wait_until(lambda: not site.queue.open_jobs(), "the queue to close them", 60)
    site.given_up = 0


def main() -> int:
    """Rounds until the time is over, or one was not as wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    chosen = parser.parse_args()
    rounds = strikes = 0
    steps: Counter[str] = Counter()
    with bench() as made:
        made.undisturbed()
        grown = grown_pictures(made)
        end = time.monotonic() + 60 * chosen.minutes
        while time.monotonic() < end:
            seed = chosen.seed + rounds
            rounds += 1
            plan = plan_of(seed, redis_versions())
            strikes += len(plan.first) + len(plan.again) * plan.retries + len(plan.traps)
            strikes += sum(len(step.strikes) for step in plan.later)
            steps.update(step.kind for step in plan.later)
            print(f"round {rounds}, seed {seed} (again: make soak SEED={seed}): {plan}", flush=True)
            verdict, folder = carry_out(made, plan, grown)
            if not verdict.clean:
                print(f"BAD {verdict}\n    see {folder}", flush=True)
                return 1
    told = ", ".join(f"{count} x {kind}" for kind, count in sorted(steps.items()))
    print(f"{rounds} rounds, {strikes} strikes, {told}: nothing lost, doubled, wrong or left over")
    return 0


if __name__ == "__main__":
    sys.exit(main())
