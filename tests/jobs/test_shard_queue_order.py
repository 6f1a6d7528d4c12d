"""Whose shard is next: priority, then tenants by cost over weight, then age."""

from collections import Counter

from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Claim, Submit


def test_priority_comes_first_then_age(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    for job_id, priority in [("old", 4), ("new", 4), ("low", 0), ("urgent", 9)]:
        submit(job_id, priority=priority, images=10)
    assert [one.job_id for one in claim(want=4)] == ["urgent", "old", "new", "low"]


def test_priority_can_be_changed(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit("a")
    submit("b", priority=1)
    assert queue.set_priority("b", 8)
    assert [one.job_id for one in claim(want=4)] == ["b", "b", "b", "a"]
    assert not queue.set_priority("nobody", 8)


def test_tenants_share_by_weight(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    for tenant, weight in [("ann", 1), ("bob", 2), ("cid", 4)]:
        submit(f"of-{tenant}", tenant=tenant, tenant_weight=weight, images=400, shard_images=1)
    served = Counter(one.job_id for _ in range(5) for one in claim(want=14))
    assert served == {"of-ann": 10, "of-bob": 20, "of-cid": 40}


def test_cost_counts_not_units(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit("slow", tenant="ann", unit_cost=4.0, images=100, shard_images=1)
    submit("fast", tenant="bob", unit_cost=1.0, images=100, shard_images=1)
    served = Counter(one.job_id for _ in range(4) for one in claim(want=10))
    assert served == {"slow": 8, "fast": 32}


def test_idle_time_earns_no_credit_and_costs_none(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit("long", tenant="ann", images=500, shard_images=1)
    for _ in range(5):
        claim(want=20)
    submit("late", tenant="bob", images=500, shard_images=1)
    assert Counter(one.job_id for one in claim(want=20)) == {"long": 10, "late": 10}
    for job_id in ("long", "late"):
        queue.state(job_id, "pause")
    # The lane was empty: who returns and who is new begin level.
    submit("new", tenant="cid", images=500, shard_images=1)
    queue.state("long", "run")
    assert Counter(one.job_id for one in claim(want=20)) == {"long": 10, "new": 10}


def test_a_tenant_at_its_cap_waits(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit("capped", tenant="ann", tenant_cap=1)
    submit("other", tenant="bob")
    assert Counter(one.job_id for one in claim(want=6)) == {"capped": 1, "other": 3}


def test_engines_do_not_mix(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit("theirs", engine_key="sha256:other", images=100)
    assert claim() == []
    [backlog] = queue.backlog()
    assert (backlog.engine_key, backlog.jobs, backlog.images_waiting) == ("sha256:other", 1, 100)


def test_backlog_counts_what_waits(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit("a", unit_cost=2.0)
    submit("b", priority=7, images=5)
    submit("held", images=100)
    queue.state("held", "pause")
    claim(want=2)
    [backlog] = queue.backlog()
    assert (backlog.jobs, backlog.images_waiting, backlog.units_in_flight) == (3, 15, 2)
    assert (backlog.cost_waiting, backlog.priority) == (30.0, 4)
