"""Fair sharing at the claim: what ages, what is charged, what is given back, who is passed over."""

from collections import Counter

import pytest

from jobs.queue_values import Lease
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Claim, Clock, Submit

#: A lane that is passed over for so long counts one priority higher.
AGE_MS = 300_000


def jobs_of(leases: list[Lease]) -> list[str]:
    return [one.job_id for one in leases]


def test_a_low_priority_starves_for_nobody(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit("urgent", priority=9, images=1_000, shard_images=1)
    submit("patient", priority=4, images=1_000, shard_images=1)
    clock.forward(5 * AGE_MS - 1)
    assert jobs_of(claim(want=3, lease_ms=600_000)) == ["urgent"] * 3
    clock.forward(1)
    # One unit, and it is as old as new.
    assert jobs_of(claim(want=3, lease_ms=600_000)) == ["patient", "urgent", "urgent"]
    # Nobody is passed over while nobody claims.
    clock.forward(50 * AGE_MS)
    assert jobs_of(claim(want=2, lease_ms=600_000)) == ["urgent", "patient"]


def test_a_lane_ages_only_while_it_has_work(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit("urgent", priority=9, images=1_000, shard_images=1)
    submit("held", priority=4, images=1_000, shard_images=1)
    queue.state("held", "pause")
    clock.forward(20 * AGE_MS)
    queue.state("held", "run")
    assert jobs_of(claim()) == ["urgent"]


def test_a_clock_that_went_back_makes_nobody_old(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    submit("urgent", priority=9, images=1_000, shard_images=1)
    submit("patient", priority=8, images=1_000, shard_images=1)
    clock.forward(-3_600_000)
    assert jobs_of(claim()) == ["urgent"]
    clock.forward(AGE_MS - 1)
    assert jobs_of(claim(want=2)) == ["urgent", "urgent"]
    clock.forward(1)
    assert jobs_of(claim(want=2)) == ["patient", "urgent"]


def test_what_was_spent_takes_the_place_of_what_was_estimated(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    """Both are said to cost a second an image; ann's take three."""
    spent = {"of-ann": 3_000, "of-bob": 1_000}
    for tenant in ("ann", "bob"):
        submit(f"of-{tenant}", tenant=tenant, images=400, shard_images=1)
    served: Counter[str] = Counter()
    for _ in range(80):
        [lease] = claim()
        served[lease.job_id] += 1
        queue.done(lease.job_id, lease.unit, lease.token, device_ms=spent[lease.job_id])
    assert served == {"of-ann": 20, "of-bob": 60}


def test_a_unit_that_is_given_back_costs_nothing(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit("drained", tenant="ann", images=400, shard_images=1)
    submit("other", tenant="bob", images=400, shard_images=1)
    given = Counter(jobs_of(leases := claim(want=20)))
    assert given == {"drained": 10, "other": 10}
    for lease in leases:
        if lease.job_id == "drained":
            queue.fail(lease.job_id, lease.unit, lease.token, "release")
    assert Counter(jobs_of(claim(want=12))) == {"drained": 11, "other": 1}


@pytest.mark.parametrize(("kind", "after"), [("done", 5), ("release", 7), ("crash", 6)])
def test_a_unit_of_a_cancelled_job_is_charged_what_it_spent(
    queue: ShardQueue, submit: Submit, claim: Claim, kind: str, after: int
) -> None:
    """Not what was estimated, and nothing where it is given back; where a process died it is."""
    submit("cancelled", tenant="ann", images=400, shard_images=1)
    submit("other", tenant="bob", images=400, shard_images=1)
    leases = [one for one in claim(want=6) if one.job_id == "cancelled"]
    queue.state("cancelled", "cancel")
    for lease in leases:
        ids = (lease.job_id, lease.unit, lease.token)
        if kind == "done":
            assert queue.done(*ids, device_ms=2_000) == "cancelled"
        else:
            assert queue.fail(*ids, kind, progress=0) == "cancelled"  # type: ignore[arg-type]
    submit("next", tenant="ann", images=400, shard_images=1)
    assert Counter(jobs_of(claim(want=12)))["next"] == after


def test_a_zombie_that_finishes_late_is_charged_once(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    """Its claim was charged; the lease of who has the unit now is another one."""
    submit("a", tenant="ann", images=400, shard_images=1)
    submit("b", tenant="bob", images=400, shard_images=1)
    late, _ = claim(want=2, lease_ms=1_000)
    clock.forward(1_001)
    claim(want=2)
    assert queue.done(late.job_id, late.unit, late.token, device_ms=9_000) == "late"
    assert Counter(jobs_of(claim(want=8))) == {"a": 4, "b": 4}


def test_who_was_given_much_back_and_is_alone_is_level_with_who_joins(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit("alone", tenant="ann", images=400, shard_images=1)
    for lease in claim(want=50):
        queue.fail(lease.job_id, lease.unit, lease.token, "release")
    submit("joins", tenant="bob", images=400, shard_images=1)
    assert Counter(jobs_of(claim(want=20))) == {"alone": 10, "joins": 10}


def test_a_tenant_that_is_away_is_charged_what_it_spent(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit("short", tenant="ann", images=1, shard_images=1)
    submit("long", tenant="bob", images=400, shard_images=1)
    first, _ = claim(want=2)
    assert claim() != []
    assert queue.done("short", first.unit, first.token, device_ms=10_000) == "ok"
    submit("again", tenant="ann", images=400, shard_images=1)
    assert jobs_of(claim(want=6)) == ["long"] * 6


@pytest.mark.parametrize("tenants", [10, 200])
def test_tenants_at_their_cap_hide_nobody_behind_them(
    queue: ShardQueue, submit: Submit, claim: Claim, tenants: int
) -> None:
    for number in range(tenants):
        submit(f"capped{number}", tenant=f"a{number:03d}", tenant_cap=1, images=5, shard_images=1)
    for _ in range(-(-tenants // 50)):
        claim(want=50)
    submit("free", tenant="zoe", images=5, shard_images=1)
    assert jobs_of(claim(want=9)) == ["free"] * 5


def test_the_cost_of_what_waits_is_what_was_measured(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit("a", images=100, shard_images=10, unit_cost=2.0)
    adopted, first, second = claim(want=3)
    queue.done("a", adopted.unit, adopted.token)
    [backlog] = queue.backlog()
    assert backlog.cost_waiting == 70 * 2.0
    for lease in (first, second):
        queue.done("a", lease.unit, lease.token, device_ms=5_000)
    [backlog] = queue.backlog()
    assert backlog.cost_waiting == 70 * 0.5
