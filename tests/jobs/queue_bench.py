"""A queue on a real Redis, its plain Python model, a store that is a dict, and what must agree."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from jobs.queue_values import Arbiter, Lease, SubmitRequest
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Clock
from tests.jobs.queue_model import JobModel
from tests.servers import RedisServer, keys_and_digests

LEASE_MS = 10_000
Reply = TypeVar("Reply")


@dataclass
class Work:
    """What one renderer believes it does; stays here when its lease is long over (a zombie)."""

    lease: Lease
    committed: bool = False


class QueueBench(RuleBasedStateMachine):
    """The things that the machine's rules act on; `server` and `arbiter` are set by the test."""

    server: RedisServer
    arbiter: Arbiter

    def __init__(self) -> None:
        super().__init__()
        self.client = self.server.client()
        self.client.flushall()
        self.clock = Clock()
        self.queue = ShardQueue(self.client, clock=self.clock)
        self.requests: dict[str, SubmitRequest] = {}
        self.jobs: dict[str, JobModel] = {}
        #: Images on which a process dies, and images of which no picture comes.
        self.poison: set[tuple[str, int]] = set()
        self.flawed: set[tuple[str, int]] = set()
        #: The store: (job, unit) -> token of whose output it is.
        self.store: dict[tuple[str, str], str] = {}
        self.works: list[Work] = []
        self.nonce = 0
        self.highest_token = 0
        #: How often the clock may still jump; whether it ever went back.
        self.jumps = 3
        self.went_back = False
        self.twice = False
        #: Redis is lost when the store has this many units: often enough, not all the time.
        self.lose_at = 1
        #: Renderers at work, as a scheduler would say.
        self.working = 1

    def call(self, op: Callable[[], Reply], *, again: Reply | None = None) -> Reply:
        """Run an op; if its reply is lost, run it again: nothing may change."""
        reply = op()
        if self.twice:
            before = keys_and_digests(self.client)
            second = op()
            assert second == (reply if again is None else again)
            assert keys_and_digests(self.client) == before
        return reply

    def new_model(self, request: SubmitRequest) -> JobModel:
        return JobModel(
            request.images,
            request.shard_images,
            request.max_attempts,
            request.batch_images,
            request.max_failed,
            working=self.working,
        )

    def tell_working(self, renderers: int) -> None:
        """As `note_working`, but it does not expire while a slow machine tries things."""
        self.working = renderers
        self.client.hset(self.queue.key("working"), "engine", f"{renderers}|0")
        for model in self.jobs.values():
            model.working = renderers

    def take(self, worker: str, want: int, ahead: bool = False) -> list[Lease]:
        self.nonce += 1
        nonce = str(self.nonce)
        claim = partial(self.queue.claim, worker, nonce, "engine", want, LEASE_MS, ahead=ahead)
        leases = self.call(claim)
        for model in self.jobs.values():
            model.expire(self.clock.now)
        for lease in leases:
            self.check_lease(lease, ahead)
        if len(leases) < want:
            assert not any(model.due(self.clock.now) for model in self.jobs.values())
        return leases

    def check_lease(self, lease: Lease, ahead: bool) -> None:
        model = self.jobs[lease.job_id]
        if model.state == "run":
            model.divide(lease.unit)
        assert lease.sound == (":" not in lease.unit or lease.unit in model.tails)
        may = model.due(self.clock.now)
        if self.went_back and model.state == "run":
            may |= set(model.waiting)
        assert lease.unit in may
        assert (lease.first, lease.stop) == model.span(lease.unit)[:2]
        assert lease.attempt == model.crashes.get(lease.unit, 0) + 1
        assert int(lease.token) > self.highest_token
        self.highest_token = int(lease.token)
        model.give(lease.unit, lease.token, self.clock.now + LEASE_MS, ahead)
        self.works.append(Work(lease))

    def suspect(self, lease: Lease) -> int | None:
        """The first poisoned image of a lease: where its process dies."""
        indexes = range(lease.first, lease.stop)
        return next((i for i in indexes if (lease.job_id, i) in self.poison), None)

    def commit(self, work: Work) -> None:
        lease = work.lease
        if self.arbiter == "s3":
            self.store.setdefault((lease.job_id, lease.unit), lease.token)
        else:
            model = self.jobs[lease.job_id]
            winner = self.call(lambda: self.queue.win(lease.job_id, lease.unit, lease.token))
            assert winner == model.win(lease.unit, lease.token)
            if not winner:
                self.works.remove(work)
                return
            # Once there, an output is never another's.
            assert self.store.setdefault((lease.job_id, lease.unit), winner) == winner
        work.committed = True

    def say_done(self, lease: Lease) -> None:
        ids = (lease.job_id, lease.unit, lease.token)
        model = self.jobs[lease.job_id]
        failed = self.failed_in(lease.job_id, lease.unit)
        expected = model.finish_unit(lease.unit, lease.token, self.arbiter, failed)
        again = "duplicate" if expected in ("ok", "late") else expected
        if expected == "cancelled" and self.arbiter == "redis":
            again = "fenced"
        reply = self.call(lambda: self.queue.done(*ids, failed, arbiter=self.arbiter), again=again)
        assert reply == expected

    def failed_in(self, job_id: str, unit: str) -> int:
        first, stop, _ = self.jobs[job_id].span(unit)
        return sum((job_id, index) in self.flawed for index in range(first, stop))

    def complete(self) -> None:
        """Renderers that never fail finish what is left; poison still kills them."""
        self.twice = False
        for job_id, model in self.jobs.items():
            assert self.queue.state(job_id, "run") == model.wish("run")
        for _ in range(2_000):
            if all(model.awaits_scheduler() for model in self.jobs.values()):
                return
            self.clock.forward(LEASE_MS)
            for lease in self.take("w1", 3):
                if self.suspect(lease) is None:
                    work = self.works[-1] = Work(lease)
                    self.commit(work)
                    self.say_done(lease)
        raise AssertionError("the queue does not come to an end")

    def check_coverage(self, job_id: str, model: JobModel) -> None:
        """As a reader of the dataset sees it: each image once, or dead with a reason."""
        if model.state in ("cancel", "stop"):
            return
        pieces = self.queue.pieces(job_id)
        whole = {str(k) for k in range(model.shards) if k not in pieces.split}
        dead = {int(span.split("-")[0]) for span in pieces.dead}
        seen = sorted(dead)
        for unit in whole | pieces.parts:
            if model.is_dead(unit):
                continue
            assert (job_id, unit) in self.store, "counted as done, but not in the store"
            first, stop, _ = model.span(unit)
            seen += range(first, stop)
        assert sorted(seen) == list(range(model.images))
        assert {i for owner, i in self.poison if owner == job_id} <= dead
