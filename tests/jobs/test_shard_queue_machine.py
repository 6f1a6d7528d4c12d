"""Random crashes, zombies, lost replies, lost Redis and wrong clocks: nothing lost, nothing twice.

Hypothesis drives a queue on a real Redis beside a plain Python model (`queue_model.py`) and a
store that is a dict. Every op may be sent twice: the second time must change no key.

Which guard of the Lua each scenario defends; taken out, the named kind of test fails:
  lost replies     claim's memo, done's `duplicate`, submit's known id, fail's token, restore's mark
  zombies          done's `fenced` and `superseded`, win's owner, a late done leaving `retry`
  splits           the count in `split`, a split shard not claimed whole, the winner dropped
  lost Redis       finished shards skipped, a job held while it is restored
  error budget     the stop in `conclude`, none of it while a job is restored
  wrong clocks     the clamps of leases and retries, tokens that rise
Guards overlap on purpose, and a short walk meets few of them: the tests that defend one each are in
`test_shard_queue*.py`. FEWSTEP_TEST_EXAMPLES=500 walks more.
"""

import os
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.queue_values import DoneUnit
from jobs.restoring import restore_plan
from tests.jobs.conftest import request_for
from tests.jobs.queue_bench import LEASE_MS, QueueBench, Work
from tests.servers import RedisServer, assert_no_leaks

OUTCOMES = {"fin": "done", "cancel": "cancelled", "stop": "failed"}


class QueueMachine(QueueBench):
    """What may happen, in any order."""

    # ---- jobs ----

    @initialize(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        for number in range(data.draw(st.integers(1, 3), "jobs")):
            job_id = f"job{number}"
            images = data.draw(st.integers(1, 24), "images")
            request = request_for(
                job_id,
                tenant=data.draw(st.sampled_from(["ann", "bob"])),
                images=images,
                shard_images=data.draw(st.sampled_from([1, 4, 16])),
                max_attempts=data.draw(st.integers(1, 3)),
                batch_images=data.draw(st.sampled_from([1, 3])),
                priority=data.draw(st.sampled_from([0, 4])),
                idempotency_key=job_id,
                max_failed=data.draw(st.sampled_from([None, None, 0, 2]), "budget"),
            )
            self.requests[job_id] = request
            self.jobs[job_id] = self.new_model(request)
            bad = data.draw(st.sets(st.integers(0, images - 1), max_size=2), "poison")
            self.poison |= {(job_id, index) for index in bad}
            flawed = data.draw(st.sets(st.integers(0, images - 1), max_size=4), "flawed")
            self.flawed |= {(job_id, index) for index in flawed}
            assert self.queue.submit(request).outcome == "ok"

    @rule(twice=st.booleans())
    def lose_replies(self, twice: bool) -> None:
        self.twice = twice

    @rule(data=st.data(), wanted=st.sampled_from(["run", "run", "run", "pause", "pause", "cancel"]))
    def state(self, data: st.DataObject, wanted: Any) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        reply = self.call(lambda: self.queue.state(job_id, wanted))
        assert reply == self.jobs[job_id].wish(wanted)

    @rule(data=st.data(), priority=st.integers(0, 9))
    def reprioritise(self, data: st.DataObject, priority: int) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        assert self.call(lambda: self.queue.set_priority(job_id, priority))

    @rule(renderers=st.sampled_from([1, 2, 5]))
    def work(self, renderers: int) -> None:
        self.tell_working(renderers)

    # ---- renderers ----

    @rule(worker=st.sampled_from(["w1", "w2"]), want=st.integers(1, 3), ahead=st.booleans())
    def claim(self, worker: str, want: int, ahead: bool) -> None:
        self.take(worker, want, ahead)

    def any_work(self, data: st.DataObject) -> Work:
        return self.works[data.draw(st.integers(0, len(self.works) - 1), "work")]

    @precondition(lambda self: self.works)
    @rule(data=st.data(), reported=st.booleans())
    def renew(self, data: st.DataObject, reported: bool) -> None:
        work = self.any_work(data)
        lease, news = work.lease, self.suspect(work.lease) if reported else None
        deadline = self.clock.now + LEASE_MS
        expected = self.jobs[lease.job_id].renew(lease.unit, lease.token, deadline, news)
        renew = partial(self.queue.renew, "w", [lease], LEASE_MS, [news])
        assert self.call(renew) == [expected]

    @precondition(lambda self: self.works)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        self.works.remove(self.any_work(data))

    @precondition(lambda self: self.works)
    @rule(data=st.data(), kind=st.sampled_from(["release", "crash"]), reported=st.booleans())
    def fail(self, data: st.DataObject, kind: Any, reported: bool) -> None:
        work = self.any_work(data)
        self.works.remove(work)
        lease, news = work.lease, self.suspect(work.lease) if reported else None
        ids = (lease.job_id, lease.unit, lease.token)
        reply = self.call(lambda: self.queue.fail(*ids, kind, "why", progress=news), again="lost")
        model = self.jobs[lease.job_id]
        assert reply == model.fail(lease.unit, lease.token, kind, news, self.clock.now)

    @precondition(lambda self: self.works)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A renderer's next step: upload, or say done. It may be a zombie and not know."""
        self.step(self.any_work(data))

    @precondition(lambda self: self.works)
    @rule(data=st.data())
    def outlive(self, data: st.DataObject) -> None:
        """A renderer sleeps through its lease, then goes on as if nothing had happened."""
        work = self.any_work(data)
        self.wait(LEASE_MS)
        self.reap()
        self.step(work)
        if work in self.works:
            self.step(work)

    def step(self, work: Work) -> None:
        if self.suspect(work.lease) is not None:
            self.works.remove(work)  # The process dies on the image.
        elif not work.committed:
            self.commit(work)
        else:
            self.works.remove(work)
            self.say_done(work.lease)

    # ---- faults ----

    @rule(ms=st.sampled_from([1, 500, 2_500, 11_000, 70_000]))
    def wait(self, ms: int) -> None:
        self.clock.forward(ms)

    @precondition(lambda self: self.jumps)
    @rule(ms=st.sampled_from([-3_600_000, -60_000, 3_600_000]))
    def jump(self, ms: int) -> None:
        self.jumps -= 1
        self.clock.forward(ms)
        self.went_back = self.went_back or ms < 0

    @rule()
    def reap(self) -> None:
        self.queue.reap()
        for model in self.jobs.values():
            model.expire(self.clock.now)

    @precondition(lambda self: len(self.store) >= self.lose_at)
    @rule()
    def lose_redis(self) -> None:
        """FLUSHALL, then rebuild from the store. Who asked for a cancel has to ask again."""
        self.lose_at = len(self.store) + 2
        self.client.flushall()
        self.tell_working(self.working)
        self.highest_token = 0
        for job_id, request in self.requests.items():
            assert self.queue.submit(request, restoring=True).outcome == "ok"
            found = [
                DoneUnit(unit, self.failed_in(job_id, unit))
                for owner, unit in self.store
                if owner == job_id
            ]
            job = self.queue.job(job_id)
            assert job is not None
            model = self.jobs[job_id] = self.new_model(request)
            for kind, unit, failed in restore_plan(job, found, {}):
                if ":" in unit:
                    model.split.add(model.span(unit)[2])
                if kind == "gap":
                    model.waiting[unit] = self.clock.now
                else:
                    model.done.add(unit)
                    model.failed += int(failed)
            model.settle()
            restore = partial(self.queue.restore, job_id, found)
            assert self.call(restore, again="ignored") == "ok"

    # ---- what holds at any time ----

    @invariant()
    def agrees_with_model(self) -> None:
        found = {job.job_id: job for job in self.queue.open_jobs()}
        for job_id, model in self.jobs.items():
            job = found[job_id]
            assert job.state == model.state
            assert job.units_in_flight == len(model.owners)
            assert job.images_in_flight == sum(model.length(unit) for unit in model.owners)
            assert job.done_images + job.failed_images + job.dead_images == model.settled()
            assert job.failed_images == model.failed
            assert job.dead_images == len(model.dead)
        waiting = {job_id for job_id, model in self.jobs.items() if model.awaits_scheduler()}
        assert set(self.queue.finishing()) == waiting

    def teardown(self) -> None:
        try:
            if self.jobs:
                self.complete()
                for job_id, model in self.jobs.items():
                    self.check_coverage(job_id, model)
                    outcome: Any = OUTCOMES[model.state]
                    self.twice = True
                    finish = partial(self.queue.finish, job_id, outcome)
                    assert self.call(finish, again="duplicate") == "ok"
                self.client.delete(self.queue.key("working"))
                assert_no_leaks(self.client)
        finally:
            self.client.close()


@pytest.mark.parametrize("arbiter", ["s3", "redis"])
def test_nothing_is_lost_and_nothing_made_twice(redis_server: RedisServer, arbiter: Any) -> None:
    machine = type("Machine", (QueueMachine,), {"server": redis_server, "arbiter": arbiter})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("FEWSTEP_TEST_EXAMPLES", "15")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
