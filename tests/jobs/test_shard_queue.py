"""Jobs in the queue: submitting, order of service, pausing, cancelling, closing, restoring."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from pydantic import ValidationError

from jobs.errors import BadConfiguration, InvalidInput
from jobs.queue_values import DoneUnit, Lease, SubmitReply
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Claim, Clock, Submit, request_for
from tests.servers import running_redis


def render(queue: ShardQueue, claim: Claim) -> list[Lease]:
    """Finish every unit there is; what was rendered, in order."""
    rendered: list[Lease] = []
    while leases := claim():
        assert queue.done(leases[0].job_id, leases[0].unit, leases[0].token) == "ok"
        rendered += leases
    return rendered


def test_a_job_from_submission_to_its_end(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    assert submit() == "job"
    assert [(one.unit, one.first, one.stop) for one in render(queue, claim)] == [
        ("0", 0, 10),
        ("1", 10, 20),
        ("2", 20, 25),
    ]
    job = queue.job("job")
    assert job is not None
    assert (job.state, job.done_images, job.units_in_flight) == ("fin", 25, 0)
    assert queue.finishing() == ["job"]
    assert queue.finish("job", "done") == "ok"
    assert queue.finish("job", "done") == "duplicate"
    assert queue.finish("job", "failed") == "conflict"
    assert queue.finishing() == []


def test_fifty_equal_submits_are_one_job(queue: ShardQueue) -> None:
    requests = [request_for(f"job{n}", idempotency_key="k", spec_sha256="s") for n in range(50)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(queue.submit, requests))
    [accepted] = [reply.job_id for reply in replies if reply.outcome == "ok"]
    assert Counter(replies) == {
        SubmitReply("ok", accepted): 1,
        SubmitReply("duplicate", accepted): 49,
    }
    assert len(queue.open_jobs()) == 1


def test_the_same_key_or_id_with_other_content_is_a_conflict(queue: ShardQueue) -> None:
    first = request_for("one", idempotency_key="k")
    assert queue.submit(first) == SubmitReply("ok", "one")
    assert queue.submit(first) == SubmitReply("duplicate", "one")
    assert queue.submit(request_for("two", idempotency_key="k")) == SubmitReply("conflict", "one")
    other = request_for("one", spec_sha256="other")
    assert queue.submit(other) == SubmitReply("conflict", "one")
    # Another tenant's keys are its own.
    assert queue.submit(request_for("three", tenant="bob", idempotency_key="k")).outcome == "ok"


def test_a_full_queue_says_so_and_has_room_again_after_a_close(client: redis.Redis) -> None:
    queue = ShardQueue(client, max_open_jobs=3, max_tenant_jobs=2)
    assert [queue.submit(request_for(f"a{n}")).outcome for n in range(3)] == ["ok", "ok", "full"]
    assert queue.submit(request_for("b0", tenant="bob")).outcome == "ok"
    assert queue.submit(request_for("c0", tenant="cid")).outcome == "full"
    assert queue.submit(request_for("c0", tenant="cid"), restoring=True).outcome == "ok"
    assert queue.finish("a0", "failed") == "ok"
    assert queue.finish("c0", "failed") == "ok"
    assert queue.submit(request_for("a2")).outcome == "ok"


def test_submitting_costs_the_same_at_any_size() -> None:
    """On a server of its own: others would be counted too."""
    # Without what a connection asks for itself now and then.
    asked = {"cmdstat_ping", "cmdstat_info", "cmdstat_dbsize", "cmdstat_client"}

    def cost(client: redis.Redis, queue: ShardQueue, job_id: str, images: int) -> tuple[int, int]:
        def commands() -> int:
            stats = client.info("commandstats")
            return sum(int(one["calls"]) for name, one in stats.items() if name not in asked)

        keys, before = client.dbsize(), commands()
        queue.submit(request_for(job_id, images=images, shard_images=1_000))
        return client.dbsize() - keys, commands() - before

    with running_redis() as server, server.client() as client:
        queue = ShardQueue(client)
        queue.submit(request_for("first"))
        small = cost(client, queue, "small", 100)
        assert small == cost(client, queue, "large", 100_000_000)
        assert (client.memory_usage("{fewstep}:q1:job:large") or 0) < 1_024


def test_memory_is_a_bit_per_finished_shard(
    client: redis.Redis, queue: ShardQueue, submit: Submit
) -> None:
    submit(images=8_000_000, shard_images=1)
    assert queue.done("job", "7999999", "0") == "late"
    assert 1e6 < (client.memory_usage("{fewstep}:q1:bits:job") or 0) < 1.3e6
    assert client.dbsize() < 16


def test_pause_and_cancel_are_seen_at_renewal(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit()
    leases = claim(want=2)
    assert queue.state("job", "pause") == "pause"
    assert claim() == []
    assert queue.renew("w", leases, 1_000) == ["pause", "pause"]
    assert queue.state("job", "run") == "run"
    assert queue.renew("w", leases, 1_000) == ["ok", "ok"]
    assert queue.state("job", "cancel") == "cancel"
    assert queue.state("job", "run") == "cancel"
    assert queue.finish("job", "cancelled") == "not_ready"
    assert queue.finishing() == []
    # Both renderers are asked to end; the job waits for the one that commits meanwhile.
    assert queue.renew("w", leases, 1_000) == ["cancel", "cancel"]
    assert queue.fail("job", leases[0].unit, leases[0].token, "release") == "cancelled"
    assert queue.renew("w", leases, 1_000) == ["lost", "cancel"]
    assert queue.finishing() == []
    assert queue.done("job", leases[1].unit, leases[1].token) == "cancelled"
    assert queue.renew("w", leases, 1_000) == ["lost", "lost"]
    assert queue.finishing() == ["job"]
    assert queue.finish("job", "cancelled") == "ok"


def test_unknown_jobs_are_called_so(queue: ShardQueue) -> None:
    assert queue.job("nobody") is None
    assert queue.state("nobody", "run") == "unknown"
    assert queue.finish("nobody", "done") == "unknown"
    assert queue.done("nobody", "0", "1") == "unknown"
    assert queue.restore("nobody", []) == "ignored"


def test_a_closed_job_expires_with_all_its_keys(
    client: redis.Redis, clock: Clock, claim: Claim
) -> None:
    queue = ShardQueue(client, clock=clock, keep_ms=60_000)
    queue.submit(request_for(max_attempts=1, idempotency_key="k"))
    [lease, _] = claim(want=2)
    queue.fail("job", lease.unit, lease.token, "crash", "boom", progress=3)
    assert queue.finish("job", "failed") == "ok"
    assert claim() == []
    closed = queue.job("job")
    assert closed is not None
    assert (closed.state, closed.outcome, closed.finished_ms) == ("closed", "failed", clock.now)
    assert queue.jobs().jobs == [closed]
    assert all(0 < client.pttl(key) <= 60_000 for key in client.keys("*:job"))
    clock.forward(60_000)
    assert queue.reap() == 1
    assert queue.jobs().jobs == []


@pytest.mark.parametrize(("days", "ms"), [(7, 604_800_000), (0.5, 43_200_000), (1e-9, 1)])
def test_how_long_ended_jobs_are_kept_is_a_setting(days: float, ms: int) -> None:
    assert Settings(keep_days=days).keep_ms == ms
    with pytest.raises(ValidationError):
        Settings(keep_days=0)


def test_jobs_are_listed_newest_first_by_pages(queue: ShardQueue, submit: Submit) -> None:
    for number in range(5):
        submit(f"job{number}", tenant="ann" if number % 2 else "bob")
    page = queue.jobs(limit=3)
    assert [job.job_id for job in page.jobs] == ["job4", "job3", "job2"]
    page = queue.jobs(limit=3, cursor=page.cursor)
    assert [job.job_id for job in page.jobs] == ["job1", "job0"]
    assert page.cursor is None
    assert [job.job_id for job in queue.jobs("bob").jobs] == ["job4", "job2", "job0"]


def test_restore_after_redis_was_lost(
    client: redis.Redis, queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=40)
    old = claim(want=2)
    client.flushall()
    assert queue.renew("w", old, 1_000) == ["lost", "lost"]
    assert queue.submit(request_for(images=40), restoring=True).outcome == "ok"
    assert claim() == []
    found = [DoneUnit("0", failed=1), DoneUnit("2:20-23"), DoneUnit("2:24-30")]
    assert queue.restore("job", found, dead={"2:23-24": "crashed"}) == "ok"
    assert queue.restore("job", found) == "ignored"
    job = queue.job("job")
    assert job is not None
    assert (job.state, job.done_images, job.failed_images, job.dead_images) == ("run", 18, 1, 1)
    # A renderer that lived through the loss may still finish, where the store is the arbiter.
    assert queue.done("job", old[1].unit, old[1].token, arbiter="redis") == "fenced"
    assert queue.done("job", old[1].unit, old[1].token) == "late"
    assert [one.unit for one in render(queue, claim)] == ["3"]
    assert queue.finishing() == ["job"]


def test_restored_shards_are_not_handed_out_again(queue: ShardQueue, claim: Claim) -> None:
    queue.submit(request_for(images=50), restoring=True)
    assert queue.restore("job", [DoneUnit("1"), DoneUnit("3:30-35")]) == "ok"
    assert [one.unit for one in claim(want=9)] == ["3:35-40", "0", "2", "4"]


def test_a_job_under_restoration_is_not_let_run(queue: ShardQueue, claim: Claim) -> None:
    queue.submit(request_for(), restoring=True)
    assert queue.state("job", "run") == "pause"
    assert queue.restore("job", [], then="pause") == "ok"
    assert claim() == []
    assert queue.state("job", "run") == "run"
    assert len(render(queue, claim)) == 3


def test_restoring_many_shards_takes_several_calls(queue: ShardQueue, claim: Claim) -> None:
    queue.submit(request_for(images=1_203, shard_images=1), restoring=True)
    assert queue.restore("job", [DoneUnit(str(k)) for k in range(1_200)]) == "ok"
    assert [one.unit for one in render(queue, claim)] == ["1200", "1201", "1202"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_id": "a|b"},
        {"tenant": ""},
        {"engine_key": "a b"},
        {"images": 0},
        {"images": 10**14},
        {"images": 8_000_001, "shard_images": 1},
        {"priority": 10},
        {"unit_cost": float("nan")},
        {"tenant_weight": 0.0},
    ],
)
def test_nonsense_is_refused_before_it_is_sent(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        request_for(**wrong)  # type: ignore[arg-type]


def test_a_client_that_returns_bytes_is_refused(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, pytest.raises(BadConfiguration, match="decode"):
        ShardQueue(client)


def test_a_shard_is_one_bit_whatever_is_done(
    client: redis.Redis, queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    """Grown shard by shard, Redis would take up to twice as much."""
    submit("new", images=100_000, shard_images=1)
    assert client.exists("{fewstep}:q1:bits:new") == 0
    [lease] = claim()
    queue.submit(request_for("back", images=100_000, shard_images=1), restoring=True)
    assert queue.restore("back", [DoneUnit(str(shard)) for shard in range(99_000)]) == "ok"
    assert queue.done("new", lease.unit, lease.token) == "ok"
    # Both by zombies of before a restore: the store has them.
    assert [queue.done("new", unit, "0") for unit in ("60000", "99999")] == ["late", "late"]
    for name in ("new", "back"):
        assert (client.memory_usage(f"{{fewstep}}:q1:bits:{name}") or 0) < 100_000 / 8 + 200
