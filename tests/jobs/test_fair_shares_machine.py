"""Random jobs, claims, ends and waits: the queue hands out what a plain model does, in order."""

import os
from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.queue_values import Lease
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Clock, request_for
from tests.jobs.fair_model import AGE_MS, FairJob, FairModel
from tests.servers import RedisServer, assert_no_leaks, keys_and_digests

LEASE_MS = 600_000
#: Exact in binary, so that queue and model agree to the last bit.
COSTS, WEIGHTS = [1.0, 2.0], {"ann": 1.0, "bob": 2.0, "cid": 4.0}
ENGINES = ["engine", "other"]


class FairMachine(RuleBasedStateMachine):
    """Nothing dies here: `test_shard_queue_machine.py` has the deaths."""

    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.client = self.server.client()
        self.client.flushall()
        self.clock = Clock()
        self.queue = ShardQueue(self.client, clock=self.clock)
        self.model = FairModel(self.clock.now)
        self.leases: list[Lease] = []
        self.nonce = 0

    @initialize()
    def begin(self) -> None:
        for engine in ENGINES:
            self.submit("ann", 4, 1.0, 9, 0, engine)
            self.submit("bob", 9, 2.0, 9, 0, engine)

    @rule(
        tenant=st.sampled_from(sorted(WEIGHTS)),
        priority=st.sampled_from([0, 4, 9]),
        cost=st.sampled_from(COSTS),
        images=st.integers(1, 9),
        cap=st.sampled_from([0, 0, 2]),
        engine=st.sampled_from(ENGINES),
    )
    def submit(
        self, tenant: str, priority: int, cost: float, images: int, cap: int, engine: str
    ) -> None:
        name, weight = f"job{len(self.model.jobs):02d}", WEIGHTS[tenant]
        request = request_for(
            name,
            tenant=tenant,
            engine_key=engine,
            priority=priority,
            unit_cost=cost,
            images=images,
            shard_images=1,
            tenant_weight=weight,
            tenant_cap=cap,
        )
        assert self.queue.submit(request).outcome == "ok"
        job = FairJob(name, tenant, priority, cost, images, images, engine)
        self.model.submit(job, weight, cap)

    @rule(want=st.integers(1, 6), engine=st.sampled_from(ENGINES))
    def claim(self, want: int, engine: str) -> None:
        self.nonce += 1
        claim = partial(self.queue.claim, "w", str(self.nonce), engine, want, LEASE_MS)
        leases = claim()
        before = keys_and_digests(self.client)
        assert claim() == leases
        assert keys_and_digests(self.client) == before
        assert [one.job_id for one in leases] == self.model.claim(engine, want)
        self.leases += leases

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), ms=st.sampled_from([0, 500, 1_000, 4_000]))
    def done(self, data: st.DataObject, ms: int) -> None:
        lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        assert self.queue.done(lease.job_id, lease.unit, lease.token, device_ms=ms) == "ok"
        self.model.done(lease.job_id, ms / 1000)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        ids = (lease.job_id, lease.unit, lease.token)
        assert self.queue.fail(*ids, "release") == "released"
        self.model.release(lease.job_id)

    @rule(data=st.data(), runs=st.booleans())
    def state(self, data: st.DataObject, runs: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.jobs)))
        if self.queue.state(name, "run" if runs else "pause") in ("run", "pause"):
            self.model.state(name, runs)

    @rule(data=st.data(), priority=st.sampled_from([0, 4, 9]))
    def rank(self, data: st.DataObject, priority: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.jobs)))
        record = self.queue.job(name)
        assert record is not None
        if record.state in ("run", "pause"):
            assert self.queue.set_priority(name, priority)
            self.model.rank(name, priority)

    @rule(ms=st.sampled_from([1, AGE_MS // 2, AGE_MS]))
    def wait(self, ms: int) -> None:
        if self.leases:
            self.queue.renew("w", self.leases, LEASE_MS)
        self.clock.forward(ms)
        self.model.now = self.clock.now

    def teardown(self) -> None:
        try:
            for name in self.model.jobs:
                self.queue.finish(name, "failed")
            for lease in self.leases:
                self.queue.renew("w", [lease], LEASE_MS)
            assert_no_leaks(self.client)
        finally:
            self.client.close()


def test_who_is_next_is_who_the_model_says(redis_server: RedisServer) -> None:
    machine = type("Machine", (FairMachine,), {"server": redis_server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("FEWSTEP_TEST_EXAMPLES", "15")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
