"""Budgets: a job stops at its limit with what it has, says so, and goes on where it is raised."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import redis
from pydantic import ValidationError

from jobs.allowance import Allowance
from jobs.budget import Budget, spent
from jobs.client import Client
from jobs.draft import order_of
from jobs.errors import Conflict, InvalidInput
from jobs.events import Event
from jobs.fetch import read_index
from jobs.job import Job, JobRequest
from jobs.keys import Quota
from jobs.limits import Limits
from jobs.queue_values import DoneUnit
from jobs.raising import change_budget
from jobs.recover import recover_jobs
from jobs.results import outcome_of
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.templates.expansion import TemplateRequest
from jobs.templates.template import Template
from jobs.views import JobViews
from jobs.webhooks import Hook, kind_of, message_of
from scheduler.limits import within_limits
from tests.api_servers import RunningApi
from tests.jobs.conftest import Claim, Clock, Submit, request_for
from tests.rendered_jobs import PREFIX, TENANT, Workshop

ROWS = [Row(prompt=f"prompt {n}") for n in range(10)]
NOW = 1_800_000_000_000


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def raised(shop: Workshop, job: Job, **limits: Any) -> Budget:
    return change_budget(shop.store, shop.queue, shop.layout(job), job, job.id, limits)


def stopped(shop: Workshop, job: Job) -> str:
    """Finish a job at its limit; why it says that it ended."""
    shop.finish()
    record = shop.record(job.id)
    assert (record.state, record.outcome) == ("closed", "stopped")
    ended = outcome_of(shop.store, shop.layout(job))
    assert (ended.state, ended.reason) == ("stopped", record.reason)
    assert shop.store.head(shop.layout(job).success) is None
    assert not read_index(shop.store, shop.layout(job)).complete
    return record.reason


def whole(shop: Workshop, job: Job) -> None:
    """The job is done, with each of its images once."""
    shop.finish()
    assert shop.record(job.id).outcome == "done"
    assert read_index(shop.store, shop.layout(job)).complete
    assert sorted(row["image"] for row in shop.rows(job)) == list(range(job.images))
    assert shop.store.head(shop.layout(job).outcome) is None


# ---- images ----


def test_exactly_so_many_images_are_made_and_then_the_rest(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=4, max_images=6)
    shop.render(job)
    assert [row["image"] for row in shop.rows(job)] == list(range(6))
    reason = stopped(shop, job)
    assert reason.startswith("stopped at 6 images, its max_images: 6 of 10 images were made in 0.0")
    assert "4 were not rendered" in reason
    assert f"`fewstep budget {job.id} --max-images ...`" in reason
    card = shop.store.get(shop.layout(job).card).decode()
    assert "**Not complete.** 4 of 10 images were not rendered" in card

    before = shop.shards(job)
    raised(shop, job, max_images=7)
    shop.render(job)
    assert [row["image"] for row in shop.rows(job)] == list(range(7))
    stopped(shop, job)
    raised(shop, job, max_images=None)
    shop.render(job)
    assert before.items() <= shop.shards(job).items()
    whole(shop, job)


def test_raised_while_it_runs(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=4, max_images=6)
    [first] = shop.claim(job)
    raised(shop, job, max_images=7)
    shop.say_done(first, shop.commit(first))
    # The shard that the limit cuts is handed out as a part, whatever was said before.
    [second] = shop.claim(job)
    assert second.unit == "1:4-7"
    assert second.sound
    raised(shop, job, max_images=9)
    [third, fourth] = shop.claim(job, want=9)
    assert (third.unit, fourth.unit) == ("1:7-8", "2:8-9")
    shop.say_done(second, shop.commit(second))
    raised(shop, job, max_images=None)
    for lease in (third, fourth):
        shop.say_done(lease, shop.commit(lease))
    shop.render(job)
    whole(shop, job)


@pytest.mark.parametrize(("asked", "first", "then"), [(0.5, 2, 5), (2, 2, 2), (None, 1_000, 1_000)])
def test_a_share_that_may_fail_is_of_what_is_let_through(
    shop: Workshop, client: redis.Redis, asked: float | None, first: int, then: int
) -> None:
    job = shop.submit(ROWS, shard_images=2, max_images=4, max_failed_rows=asked)
    shop.broken = {0, 1, 4}
    shop.render(job)
    assert shop.record(job.id).max_failed == first
    stopped(shop, job)

    raised(shop, job, max_images=6)
    raised(shop, job, max_images=10)
    assert shop.record(job.id).max_failed == then
    client.flushall()
    list(recover_jobs(shop.store, shop.queue, PREFIX))
    assert shop.record(job.id).max_failed == then
    shop.render(job)
    shop.finish()
    outcome = "failed" if then < 3 else "done"
    record = shop.record(job.id)
    assert (record.outcome, f"more than the {then}" in record.reason) == (outcome, then < 3)


def test_a_limit_beyond_the_job_is_none(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=4, max_images=10)
    shop.render(job)
    whole(shop, job)


def test_it_can_only_be_raised(shop: Workshop) -> None:
    job = shop.submit(ROWS, max_images=6)
    with pytest.raises(InvalidInput, match="6 images are let through already"):
        raised(shop, job, max_images=5)
    assert shop.record(job.id).images == 6


def test_what_is_refused_takes_no_images_of_the_day(shop: Workshop, client: redis.Redis) -> None:
    job, other = (shop.submit(ROWS, shard_images=4, max_images=6) for _ in range(2))
    shop.queue.state(job.id, "cancel")
    grants: dict[str, Any] = {"quota": Quota(images_a_day=4), "allowance": Allowance(client)}

    def more(one: Job) -> Budget:
        queue_id, limits = one.id, {"max_images": 10}
        layout = shop.layout(one)
        return change_budget(shop.store, shop.queue, layout, one, queue_id, limits, **grants)

    with pytest.raises(Conflict, match="being closed"):
        more(job)
    shop.finish()
    with pytest.raises(Conflict, match="the job is cancelled"):
        more(job)
    assert more(other).max_images == 10


def test_a_huge_template_is_limited_to_what_is_wanted_of_it(shop: Workshop) -> None:
    lists = {name: tuple(f"{name}{n}" for n in range(1_000)) for name in ("a", "b", "c")}
    asked = TemplateRequest(template="{{a}} {{b}} {{c}}", lists=lists)
    job = shop.submit(Template.of(asked), max_images=20, output="objects")
    assert job.images == 10**9
    shop.render(job)
    assert len(shop.rows(job)) == 20
    stopped(shop, job)
    with pytest.raises(InvalidInput, match="single objects"):
        raised(shop, job, max_images=10_001)
    asked: dict[str, Any] = {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": 1}
    with pytest.raises(InvalidInput, match="999999980 images were never rendered"):
        retry_failed(shop.store, shop.queue, **asked, idempotency_key="a", unfinished=True)


# ---- device-seconds and deadlines ----


def stop_spent(shop: Workshop, now_ms: int = NOW) -> None:
    within_limits(shop.queue, shop.queue.open_jobs(), now_ms)


def test_a_job_whose_limit_was_raised_meanwhile_is_not_stopped(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=2, max_device_seconds=0.02)
    shop.render(job, units=2)
    seen = shop.queue.open_jobs()
    raised(shop, job, max_device_seconds=10.0)

    assert [one.job_id for one in within_limits(shop.queue, seen, NOW)] == [job.id]
    assert shop.record(job.id).state == "run"


def test_what_renderers_report_is_counted(shop: Workshop) -> None:
    """A unit of a workshop takes 10 ms."""
    job = shop.submit(ROWS, shard_images=2, max_device_seconds=0.02)
    shop.render(job, units=1)
    stop_spent(shop)
    late, given_back = shop.claim(job, want=2)
    shop.render(job, units=1)
    assert shop.record(job.id).state == "run"
    stop_spent(shop)
    assert shop.record(job.id).state == "stop"
    assert shop.claim(job) == []
    assert shop.finish() == 0
    assert shop.queue.renew("w", [late, given_back], 60_000) == ["cancel", "cancel"]
    # What is committed meanwhile is kept, as when a job is cancelled.
    assert shop.say_done(late, shop.commit(late)) == "cancelled"
    assert shop.queue.fail(job.id, given_back.unit, given_back.token, "release") == "cancelled"
    reason = stopped(shop, job)
    assert "0.0 device-seconds of 0.02, its max_device_seconds: 6 of 10 images" in reason
    assert (shop.record(job.id).done_images, read_index(shop.store, shop.layout(job)).ok) == (6, 6)

    with pytest.raises(Conflict, match="would stop at once: max_device_seconds"):
        raised(shop, job, deadline=datetime.fromtimestamp(NOW / 1000 + 9e8, UTC))
    raised(shop, job, max_device_seconds=100.0)
    # The manifests say what was spent before.
    assert shop.record(job.id).spent_ms == 3 * 640
    shop.render(job)
    whole(shop, job)


def test_a_deadline(shop: Workshop) -> None:
    asked = datetime.fromtimestamp(NOW / 1000, UTC)
    job = shop.submit(ROWS, shard_images=2, deadline=asked)
    shop.render(job, units=2)
    stop_spent(shop, NOW - 1)
    assert shop.record(job.id).state == "run"
    stop_spent(shop, NOW)
    assert "its deadline, 2027-01-15 08:00:00 UTC: 4 of 10" in stopped(shop, job)
    raised(shop, job, deadline=None)
    shop.render(job)
    whole(shop, job)


def test_a_job_that_was_whole_when_it_was_stopped_is_done(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=10, max_device_seconds=5.0)
    [lease] = shop.claim(job)
    failed = shop.commit(lease)
    assert shop.queue.stop(job.id, "deadline") == "stop"
    assert shop.say_done(lease, failed) == "cancelled"
    whole(shop, job)


def test_a_deadline_that_is_over_is_refused(shop: Workshop) -> None:
    over = datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="2020-01-01 00:00 UTC is over"):
        shop.submit(ROWS, deadline=over)
    job = shop.submit(ROWS)
    with pytest.raises(InvalidInput, match="is over"):
        raised(shop, job, deadline=over)


# ---- what outlives what ----


def test_redis_may_be_lost_before_and_after_the_limit(shop: Workshop, client: redis.Redis) -> None:
    job = shop.submit(ROWS, shard_images=4, max_images=6, max_device_seconds=50.0)
    shop.render(job, units=1)
    client.flushall()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [job.id]
    record = shop.record(job.id)
    assert (record.images, record.spent_ms, record.limits.device_ms) == (6, 640, 50_000)
    raised(shop, job, max_images=7, max_device_seconds=60.0)
    client.flushall()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [job.id]
    shop.render(job)
    assert [row["image"] for row in shop.rows(job)] == list(range(7))
    stopped(shop, job)
    client.flushall()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []
    view = JobViews(shop.store, shop.queue, prefix=PREFIX, tenant=TENANT).view(job.id)
    assert (view.state, view.done, view.images, view.budget.max_images) == ("stopped", 7, 7, 7)
    raised(shop, job, max_images=10)
    shop.render(job)
    whole(shop, job)


def test_a_queue_that_went_back_in_time_is_told_the_limits_again(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=4, max_images=6)
    raised(shop, job, max_images=8)
    before = Budget(max_images=6)
    # As a failover that forgot the last second: the store knows more than the queue.
    shop.queue.forget(job.id)
    shop.queue.finish(job.id, "failed")
    assert shop.queue.forget(job.id) == "closed"
    shop.queue.submit(order_of(job, budget=before))
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []
    assert shop.record(job.id).images == 8


def test_raising_that_was_cut_short_is_repeated(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.submit(ROWS, shard_images=4, max_images=6)
    shop.render(job)
    stopped(shop, job)

    def dies(job_id: str) -> str:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(shop.queue, "forget", dies)
        with pytest.raises(RuntimeError):
            raised(shop, job, max_images=9)
    raised(shop, job, max_images=9)
    raised(shop, job, max_images=9)
    shop.render(job)
    assert len(shop.rows(job)) == 9
    stopped(shop, job)


def test_what_failed_is_retried_and_closes_the_jobs_own_shards(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=4, max_images=6)
    shop.broken = {1}
    shop.render(job)
    stopped(shop, job)
    shop.broken = set()
    asked = {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": 1}
    again = retry_failed(shop.store, shop.queue, **asked, idempotency_key="a")  # type: ignore[arg-type]
    assert again.images == 1
    shop.render(job)
    shop.finish()
    record = shop.record(job.id)
    assert (record.outcome, record.done_images, record.failed_images) == ("stopped", 6, 0)
    assert outcome_of(shop.store, shop.layout(job)).state == "stopped"
    with pytest.raises(Conflict, match=r"retried since it stopped.*--unfinished"):
        raised(shop, job, max_images=9)
    with pytest.raises(Conflict, match="a retry has no budget"):
        change_budget(shop.store, shop.queue, shop.layout(job), job, again.id, {"max_images": 9})
    rest = retry_failed(shop.store, shop.queue, **asked, idempotency_key="b", unfinished=True)  # type: ignore[arg-type]
    assert rest.images == 4
    shop.render(job)
    shop.finish()
    assert shop.record(job.id).outcome == "done"


def test_a_job_that_ended_otherwise_does_not_go_on(shop: Workshop) -> None:
    job = shop.submit(ROWS)
    shop.render(job)
    shop.finish()
    with pytest.raises(Conflict, match="the job is done"):
        raised(shop, job, max_device_seconds=9.0)


def test_what_came_to_nothing_is_spent_too(shop: Workshop, client: redis.Redis) -> None:
    job = shop.submit(ROWS, shard_images=5, max_device_seconds=5)
    shop.render(job, units=1)
    [lease] = shop.claim(job)
    assert shop.queue.fail(job.id, lease.unit, lease.token, "release", device_ms=6_000)
    stop_spent(shop)
    assert "5 of 10 images were made in 6.0 device-seconds" in stopped(shop, job)
    with pytest.raises(Conflict, match="would stop at once: max_device_seconds"):
        raised(shop, job, max_device_seconds=5.5)
    # What the store tells of it is enough, before it goes on and after.
    client.flushall()
    view = JobViews(shop.store, shop.queue, prefix=PREFIX, tenant=TENANT).view(job.id)
    assert view.device_seconds == 6.01
    with pytest.raises(Conflict, match="would stop at once: max_device_seconds"):
        raised(shop, job, max_device_seconds=5.5)
    raised(shop, job, max_device_seconds=7.0)
    client.flushall()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [job.id]
    assert shop.record(job.id).spent_ms == 6_010
    shop.render(job)
    whole(shop, job)


# ---- the queue alone ----


def test_seconds_of_units_that_were_given_back_or_died(
    queue: ShardQueue, submit: Submit, claim: Claim, clock: Clock
) -> None:
    def wasted() -> int:
        job = queue.job("job")
        assert job is not None
        assert (job.device_ms, job.image_cost) == (0, 1.0)
        return job.wasted_ms

    submit(images=60, shard_images=10)
    back, broke, died, slow, told, ahead = claim(want=6)
    assert queue.fail("job", back.unit, back.token, "release", device_ms=700) == "released"
    assert queue.fail("job", back.unit, back.token, "release", device_ms=700) == "lost"
    assert wasted() == 700
    queue.fail("job", broke.unit, broke.token, "crash", progress=12, device_ms=300)
    assert wasted() == 1_000
    # Who died says nothing any more: its renewals did, of which two may cross.
    queue.renew("w", [died], 60_000, [25], [400])
    queue.renew("w", [died], 60_000, [26], [300])
    queue.fail("job", died.unit, died.token, "crash")
    assert wasted() == 1_400
    # An image that is tried again takes time and is no progress.
    queue.renew("w", [slow, told, ahead], 60_000, [35, 40, None], [50, 0, 0])
    queue.renew("w", [slow], 60_000, [None], [90])
    record = next(one for one in queue.leases() if one.unit == slow.unit)
    assert record.progress == 35
    # A later word of its own counts, and a smaller one does not undo what was told.
    queue.renew("w", [told], 60_000, [41], [80])
    assert queue.fail("job", told.unit, told.token, "release", device_ms=60) == "released"
    assert wasted() == 1_480
    clock.forward(60_000)
    assert queue.reap() == 2
    assert wasted() == 1_570


def test_seconds_of_a_job_that_was_stopped_meanwhile(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=20, shard_images=10)
    kept, back = claim(want=2)
    queue.stop("job", "max_device_seconds")
    assert queue.done("job", kept.unit, kept.token, device_ms=500) == "cancelled"
    assert queue.done("job", kept.unit, kept.token, device_ms=500) == "cancelled"
    assert queue.fail("job", back.unit, back.token, "release", device_ms=30) == "cancelled"
    job = queue.job("job")
    assert job is not None
    assert (job.device_ms, job.wasted_ms, job.spent_ms) == (500, 30, 530)


def test_a_unit_that_a_limit_cuts_may_crash_as_a_whole_shard_may(
    queue: ShardQueue, submit: Submit, claim: Claim
) -> None:
    submit(images=15, shard_images=10, max_attempts=3, limits=Limits(cut=True))
    _, cut = claim(want=2)
    assert (cut.unit, cut.sound) == ("1:10-15", True)
    assert queue.fail("job", cut.unit, cut.token, "crash") == "retry"
    assert queue.limit("job", 25, Limits()) == "run"
    units = {lease.unit for lease in claim(want=9)}
    assert units == {"1:10-15", "1:15-20", "2"}


def test_what_was_let_through_stays_so(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit(images=15, shard_images=10, limits=Limits(cut=True))
    _, cut = claim(want=2)
    assert queue.limit("job", 5, Limits()) == "run"
    job = queue.job("job")
    assert job is not None
    assert (job.images, job.shards) == (15, 2)
    assert queue.done("job", cut.unit, cut.token) == "ok"
    assert queue.settled_shards("job", [0, 1]) == {1}
    assert queue.limit("job", 20, Limits()) == "run"
    assert queue.settled_shards("job", [0, 1]) == set()
    [rest] = claim()
    assert (rest.unit, rest.sound) == ("1:15-20", True)
    assert queue.done("job", rest.unit, rest.token) == "ok"
    assert queue.settled_shards("job", [0, 1]) == {1}


def test_limits_of_jobs_that_do_not_go_on(queue: ShardQueue, submit: Submit) -> None:
    submit()
    queue.state("job", "cancel")
    assert queue.limit("job", 99, Limits()) == "cancel"
    assert queue.stop("job", "deadline") == "cancel"
    assert queue.forget("job") == "cancel"
    assert queue.limit("nobody", 99, Limits()) == "unknown"
    assert queue.stop("nobody", "deadline") == "unknown"
    assert queue.forget("nobody") == "unknown"
    queue.submit(request_for("back"), restoring=True)
    assert queue.limit("back", 99, Limits()) == "restoring"
    assert queue.stop("back", "deadline") == "pause"
    assert queue.restore("back", [DoneUnit("0")]) == "ok"
    assert queue.stop("back", "deadline") == "stop"
    assert queue.finish("back", "stopped") == "ok"
    assert queue.finish("back", "stopped") == "duplicate"


def test_only_a_limit_makes_a_job_stopped(queue: ShardQueue, submit: Submit, claim: Claim) -> None:
    submit(max_failed=0)
    [lease] = claim()
    assert queue.finish("job", "stopped") == "not_ready"
    queue.done("job", lease.unit, lease.token, failed=1)
    assert queue.finish("job", "stopped") == "not_ready"
    assert queue.finish("job", "done") == "not_ready"


# ---- values ----


@pytest.mark.parametrize(
    ("device_ms", "now_ms", "limit"),
    [(999, 4, None), (1_000, 4, "max_device_seconds"), (0, 5, "deadline")],
)
def test_when_a_budget_is_spent(device_ms: int, now_ms: int, limit: str | None) -> None:
    assert spent(Limits(device_ms=1_000, deadline_ms=5), device_ms, now_ms) == limit
    assert spent(Limits(), device_ms, now_ms) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_images": 0},
        {"max_images": 1.5},
        {"max_device_seconds": 0},
        {"max_device_seconds": "9"},
        {"max_images": -1},
        {"max_device_seconds": -1},
    ],
)
def test_what_is_no_budget_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobRequest.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong", ["2030-01-01T00:00", "2030-01-01", "soon", "2030-13-01T00:00Z", "1893456000", 2e9, 9]
)
def test_a_deadline_is_a_moment_with_its_zone(wrong: object) -> None:
    with pytest.raises(ValidationError, match=r"time zone, such as 2026-12-01T18:00Z"):
        JobRequest.model_validate({"deadline": wrong})


def test_over_http(api: RunningApi) -> None:
    asked = JobRequest(max_images=2, deadline="2100-01-01T00:00:00+01:00")  # type: ignore[arg-type]
    with Client(api.url) as client:
        done = client.submit(asked, ["a", "b", "c"])
        assert (done.images, client.dry_run(asked, ["a", "b", "c"]).images) == (2, 2)
        view = client.set_budget(done.id, max_images=3, max_device_seconds=2.5)
        assert (view.images, view.budget.max_images, view.device_seconds) == (3, None, 0.0)
        assert view.budget.deadline == datetime(2099, 12, 31, 23, tzinfo=UTC)
        assert client.set_budget(done.id, deadline=None).budget == Budget(max_device_seconds=2.5)
        with pytest.raises(InvalidInput, match="let through already"):
            client.set_budget(done.id, max_images=1)
    for body, status in (({}, 422), ({"max_images": 0}, 422), ({"priority": 2}, 200)):
        url = f"{api.url}/v1/jobs/{done.id}"
        assert httpx.patch(url, json=body, trust_env=False).status_code == status


def test_each_stop_is_a_message_of_its_own() -> None:
    hook = Hook(id="hook_" + "0" * 24, tenant="t", url="u", events=(), secret="s", created_ms=1)
    told = {"outcome": "stopped", "reason": "stopped at 6 images"}
    ends = [Event(number, "finished", "job", "", 1, 10, 6, 0, 0, told) for number in ("1-0", "2-0")]
    kinds = {kind_of(end) for end in ends}
    assert kinds == {"job.stopped"}
    messages = [message_of(hook, end, "job.stopped") for end in ends]
    assert messages[0].id != messages[1].id
    assert '"reason":"stopped at 6 images"' in messages[0].body
