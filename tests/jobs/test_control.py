"""Steering a job: what takes effect at once, what is kept or deleted, and what outlives Redis."""

from typing import Any

import pytest
import redis

from jobs.commit import adopt_unit
from jobs.control import Course, rank, read_course, steer
from jobs.discard import orphans
from jobs.errors import Conflict, NoCapacity
from jobs.fetch import read_index
from jobs.job import Job
from jobs.recover import recover_jobs
from jobs.results import outcome_of
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.rendered_jobs import PREFIX, TENANT, Workshop

ROWS = [Row(prompt=f"prompt {n}") for n in range(10)]


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def job_id(job: Job) -> str:
    return job.id


def cancel(shop: Workshop, job: Job, *, discard: bool = False) -> str:
    return steer(shop.queue, shop.store, shop.layout(job), job.id, "cancel", discard=discard)


def test_a_cancelled_job_keeps_what_is_done_as_a_dataset(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=2)
    shop.broken = {1}
    shop.render(job, units=3)

    assert cancel(shop, job) == "cancel"
    shop.finish()

    record, index = shop.record(job.id), read_index(shop.store, shop.layout(job))
    assert (record.outcome, record.reason) == ("cancelled", "cancelled by its user")
    assert (index.complete, index.ok, index.failed, len(index.shards)) == (False, 5, 1, 3)
    assert [row["image"] for row in shop.rows(job, "quarantine")] == [1]
    assert "**Not complete.** 4 of 10" in shop.store.get(shop.layout(job).card).decode()
    assert shop.store.head(shop.layout(job).success) is None


def test_what_is_committed_while_a_job_is_cancelled_is_kept(shop: Workshop) -> None:
    """The tar is the commit point: a renderer that dies behind it has committed."""
    job = shop.submit(ROWS, shard_images=2)
    late, dies = shop.claim(job, want=2)
    cancel(shop, job)
    assert shop.finish() == 0

    shop.commit(dies)
    layout = shop.layout(job)
    shop.store.delete([f"{layout.shards}00001.parquet", f"{layout.shards}00001_stats.json"])
    assert list(orphans(shop.store, layout)) == ["00001"]
    shop.queue.fail(dies.job_id, dies.unit, dies.token, "crash", "died")
    assert shop.finish() == 0
    assert shop.say_done(late, shop.commit(late)) == "cancelled"
    assert shop.finish() == 1

    index = read_index(shop.store, layout)
    assert [shard.name for shard in index.shards] == ["train/00000.tar", "train/00001.tar"]
    assert (shop.record(job.id).done_images, list(orphans(shop.store, layout))) == (4, [])


def test_a_cancelled_job_may_be_deleted(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=2)
    shop.render(job, units=3)
    layout = shop.layout(job)

    assert cancel(shop, job, discard=True) == "cancel"
    shop.finish()

    assert {found.key for found in shop.store.list("")} >= {layout.job, layout.outcome}
    left = {found.key for found in shop.store.list(f"{PREFIX}/") if "probe" not in found.key}
    assert left == {layout.job, layout.outcome}
    ended = outcome_of(shop.store, layout)
    assert (ended.state, ended.deleted, ended.done) == ("cancelled", True, 0)
    assert shop.record(job.id).done_images == 0
    with pytest.raises(Conflict, match="deleted"):
        retry_failed(
            shop.store,
            shop.queue,
            prefix=PREFIX,
            tenant=TENANT,
            job_id=job.id,
            idempotency_key="key",
            now_ms=0,
        )


def test_keep_may_become_delete_until_the_job_is_closed(shop: Workshop) -> None:
    job, other = (shop.submit(ROWS, shard_images=5) for _ in range(2))
    [lease] = shop.claim(job)

    cancel(shop, job)
    assert not shop.record(job.id).discard
    cancel(shop, job, discard=True)
    assert shop.record(job.id).discard
    cancel(shop, other)
    with pytest.raises(Conflict, match="being closed with what is done"):
        cancel(shop, other, discard=True)

    shop.queue.fail(job.id, lease.unit, lease.token, "release")
    shop.finish()
    assert outcome_of(shop.store, shop.layout(job)).deleted
    assert not outcome_of(shop.store, shop.layout(other)).deleted


def test_a_deleted_retry_leaves_the_dataset_as_it_was(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=4)
    shop.broken = {1, 2, 3, 4, 5}
    shop.render(job)
    shop.finish()
    before = shop.shards(job)
    asked = retry_failed(
        shop.store,
        shop.queue,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=job.id,
        idempotency_key="key",
        now_ms=0,
    )
    shop.broken = set()
    shop.render(job, units=1)

    steer(shop.queue, shop.store, shop.layout(job), asked.id, "cancel", discard=True)
    shop.finish()

    assert shop.shards(job) == before
    assert shop.record(asked.id).outcome == "cancelled"
    assert (shop.record(job.id).outcome, shop.record(job.id).failed_images) == ("done", 5)


def test_what_a_job_was_told_outlives_redis(shop: Workshop, client: redis.Redis) -> None:
    paused, ranked, cancelled, gone = (shop.submit(ROWS, shard_images=2) for _ in range(4))
    shop.render(paused, units=1)
    told = ((paused, "pause"), (cancelled, "cancel"))
    for job, wanted in told:
        steer(shop.queue, shop.store, shop.layout(job), job.id, wanted)  # type: ignore[arg-type]
    assert cancel(shop, gone, discard=True) == "cancel"
    assert rank(shop.queue, shop.store, shop.layout(ranked), ranked.id, 9)
    client.flushall()

    back = set(recover_jobs(shop.store, shop.queue, PREFIX))

    assert back == {paused.id, ranked.id, cancelled.id, gone.id}
    assert shop.record(paused.id).state == "pause"
    assert shop.record(paused.id).done_images == 2
    assert (shop.record(ranked.id).state, shop.record(ranked.id).priority) == ("run", 9)
    assert (shop.record(cancelled.id).state, shop.record(cancelled.id).discard) == ("cancel", False)
    assert shop.record(gone.id).discard
    assert shop.finish() == 2
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []


def test_a_job_that_was_cancelled_when_all_was_done_comes_back_cancelled(
    shop: Workshop, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told after its restoring it would be finished as done, and its units handed out before."""
    full, half = (shop.submit(ROWS, shard_images=5) for _ in range(2))
    leases = shop.claim(full, want=2)
    cancel(shop, full, discard=True)
    for lease in leases:
        shop.commit(lease)
    cancel(shop, half)
    client.flushall()
    handed_out: list[int] = []
    restore = shop.queue.restore

    def watched(job_id: str, *words: Any, **more: Any) -> str:
        answer = restore(job_id, *words, **more)
        handed_out.append(len(shop.claim(half)))
        return answer

    monkeypatch.setattr(shop.queue, "restore", watched)
    assert set(recover_jobs(shop.store, shop.queue, PREFIX)) == {full.id, half.id}

    assert handed_out == [0, 0]
    assert shop.record(full.id).state == shop.record(half.id).state == "cancel"
    assert not shop.record(full.id).restoring
    assert shop.finish() == 2
    assert outcome_of(shop.store, shop.layout(full)).deleted
    assert shop.shards(full) == {}
    assert shop.record(half.id).outcome == "cancelled"


def test_cancelling_again_does_not_take_back_the_wish_to_delete(
    shop: Workshop, client: redis.Redis
) -> None:
    job = shop.submit(ROWS)
    shop.claim(job)
    cancel(shop, job, discard=True)
    cancel(shop, job)
    client.flushall()

    list(recover_jobs(shop.store, shop.queue, PREFIX))

    assert shop.record(job.id).discard


def test_a_damaged_file_keeps_no_other_job_out(
    shop: Workshop, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = sorted((shop.submit(ROWS, shard_images=2) for _ in range(2)), key=job_id)
    shop.store.put(shop.layout(first).job, b"{}")
    shop.store.put(f"{PREFIX}/_tenants/{TENANT}.json", b"{}}")
    client.flushall()

    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [second.id]

    assert shop.layout(first).job in caplog.text
    assert f"quota_not_read tenant={TENANT}" in caplog.text
    assert shop.queue.job(first.id) is None


@pytest.mark.parametrize("damage", [b"{}", None])
def test_a_damaged_manifest_is_made_again_from_its_tar(
    shop: Workshop, client: redis.Redis, damage: bytes | None
) -> None:
    job, other = (shop.submit(ROWS, shard_images=2) for _ in range(2))
    shop.render(job, units=1)
    layout = shop.layout(job)
    manifest, tar = (f"{layout.shards}00000{end}" for end in ("_stats.json", ".tar"))
    before, whole = shop.store.get(tar), shop.store.get(manifest)
    shop.store.put(manifest, damage or whole.replace(job.id.encode(), other.id.encode()))
    client.flushall()

    assert job.id in set(recover_jobs(shop.store, shop.queue, PREFIX))

    record = shop.record(job.id)
    assert (record.restoring, record.state, record.done_images) == (False, "run", 0)
    steer(shop.queue, shop.store, shop.layout(other), other.id, "pause")
    [lease] = shop.claim(job)
    _, layout, unit, _ = shop.unit_of(lease)
    adopted = adopt_unit(shop.store, shop.queue, job, layout, unit, lease.token, 0)
    assert adopted is not None
    assert shop.say_done(lease, adopted.manifest.failed) == "ok"
    shop.render(job)
    shop.finish()
    assert shop.record(job.id).outcome == "done"
    assert shop.store.get(tar) == before


def test_a_queue_that_went_back_in_time_is_told_of_a_cancel_again(shop: Workshop) -> None:
    """As after a failover: the queue has the job, and not the last thing it was told."""
    job = shop.submit(ROWS)
    steer(shop.queue, shop.store, shop.layout(job), job.id, "cancel")
    shop.queue._client.flushall()
    list(recover_jobs(shop.store, shop.queue, PREFIX))
    shop.queue._client.hset(shop.queue.key(f"job:{job.id}"), "state", "run")

    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []

    assert shop.record(job.id).state == "cancel"


def test_a_queue_that_went_back_in_time_is_told_of_pause_and_priority_again(
    shop: Workshop, client: redis.Redis
) -> None:
    paused, resumed, ranked, left = (shop.submit(ROWS) for _ in range(4))
    for job, wanted in ((paused, "pause"), (resumed, "pause"), (resumed, "run")):
        steer(shop.queue, shop.store, shop.layout(job), job.id, wanted)  # type: ignore[arg-type]
    assert rank(shop.queue, shop.store, shop.layout(ranked), ranked.id, 9)
    # As they were before they were told.
    shop.queue.state(paused.id, "run")
    shop.queue.state(resumed.id, "pause")
    shop.queue.set_priority(ranked.id, 4)

    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []

    assert shop.record(paused.id).state == "pause"
    assert shop.record(resumed.id).state == "run"
    assert shop.record(ranked.id).priority == 9
    assert (shop.record(left.id).state, shop.record(left.id).priority) == ("run", 4)


def test_what_a_job_is_told_while_the_store_is_read_back_holds(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery has read the old word, and tells it between the two halves of the new one."""
    job = shop.submit(ROWS)
    layout = shop.layout(job)
    steer(shop.queue, shop.store, layout, job.id, "pause")
    steer(shop.queue, shop.store, layout, job.id, "run")
    shop.queue.state(job.id, "pause")
    told: list[str] = []
    state = shop.queue.state

    def interrupted(job_id: str, wanted: Any, **more: Any) -> str:
        answer = state(job_id, wanted, **more)
        if not told:
            told.append(wanted)
            steer(shop.queue, shop.store, layout, job_id, "pause")
        return answer

    monkeypatch.setattr(shop.queue, "state", interrupted)
    list(recover_jobs(shop.store, shop.queue, PREFIX))

    assert told == ["run"]
    assert shop.record(job.id).state == "pause"


def test_what_was_refused_for_lack_of_room_does_not_come_in_by_restoring(
    shop: Workshop, client: redis.Redis
) -> None:
    shop.queue = ShardQueue(client, max_open_jobs=0)
    with pytest.raises(NoCapacity):
        shop.submit(ROWS, key="mine")
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []

    shop.queue = ShardQueue(client)
    job = shop.submit(ROWS, key="mine")

    assert read_course(shop.store, shop.layout(job), job.id) == Course()
    client.flushall()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [job.id]


def test_a_refusal_is_forgotten_by_whoever_is_told_that_the_job_was_accepted(
    shop: Workshop, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The try that found room died before it took the refusal back."""

    class Died(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Died

    shop.queue = ShardQueue(client, max_open_jobs=0)
    with pytest.raises(NoCapacity):
        shop.submit(ROWS, key="mine")
    shop.queue = ShardQueue(client)
    with monkeypatch.context() as patch:
        patch.setattr("jobs.submit.forget_course", dies)
        with pytest.raises(Died):
            shop.submit(ROWS, key="mine")

    job = shop.submit(ROWS, key="mine")

    client.flushall()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [job.id]


def test_sending_a_job_again_does_not_forget_a_pause(shop: Workshop) -> None:
    job = shop.submit(ROWS, key="mine")
    steer(shop.queue, shop.store, shop.layout(job), job.id, "pause")

    shop.submit(ROWS, key="mine")

    assert read_course(shop.store, shop.layout(job), job.id) == Course(state="pause")


def test_a_job_that_is_not_there_is_told_nothing(shop: Workshop) -> None:
    job = shop.submit(ROWS)
    layout = shop.layout(job)
    shop.render(job)
    shop.finish()

    assert steer(shop.queue, shop.store, layout, job.id, "pause") == "closed"
    assert not rank(shop.queue, shop.store, layout, "a" * 26, 3)
    assert list(shop.store.list(f"{layout.scratch}control/")) == []
