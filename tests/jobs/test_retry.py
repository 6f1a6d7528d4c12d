"""Retrying what failed: exactly those images, as new shards, and nothing there is touched."""

import io
import json
import tarfile
from typing import Any

import pytest
import redis

from jobs.covered import Coverage
from jobs.dataset_index import DatasetIndex
from jobs.errors import Conflict, NotFound
from jobs.fetch import read_index
from jobs.finish import Facts, finish_job
from jobs.job import Job, Submission
from jobs.quarantine import Quarantine, write_quarantine
from jobs.recover import recover_jobs
from jobs.results import outcome_of, round_outcome
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.jobs.conftest import Clock
from tests.rendered_jobs import PREFIX, TENANT, Workshop

ROWS = [
    Row(prompt=f"prompt {n}", negative_prompt="fog", seed=n if n % 2 else None, extra={"topic": n})
    for n in range(5)
]


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def retry(shop: Workshop, job: Job, key: str = "key", *, unfinished: bool = False) -> Submission:
    return retry_failed(
        shop.store,
        shop.queue,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=job.id,
        idempotency_key=key,
        unfinished=unfinished,
        now_ms=1_700_000_100_000,
    )


def done_job(shop: Workshop, broken: set[int]) -> Job:
    """Ten images in three shards, `broken` of them without a picture; finished."""
    job = shop.submit(ROWS, repeats=2, shard_images=4)
    shop.broken = broken
    shop.render(job)
    shop.finish()
    assert shop.record(job.id).outcome == "done"
    return job


def index_of(shop: Workshop, job: Job) -> DatasetIndex:
    return read_index(shop.store, shop.layout(job))


def test_what_failed_is_made_as_new_shards(shop: Workshop) -> None:
    job = done_job(shop, {1, 4, 5, 6, 9})
    before = shop.shards(job)
    first = {row["image"]: row for row in shop.rows(job, "quarantine")}

    asked = retry(shop, job)
    shop.broken = {5}
    shop.render(job)
    assert shop.finish() == 1

    assert (asked.id, asked.created, asked.images, asked.shards) == (f"{job.id}-r1", True, 5, 2)
    after = shop.shards(job)
    assert {key: after[key] for key in before} == before
    new = sorted(key.rpartition("/")[2] for key in after.keys() - before.keys())
    assert [name for name in new if name.endswith(".tar")] == ["00003.tar", "00004.tar"]
    index = index_of(shop, job)
    assert (index.complete, index.images, index.ok, index.failed) == (True, 10, 9, 1)
    assert [(shard.name, shard.round) for shard in index.shards] == [
        *((f"train/0000{n}.tar", 0) for n in range(3)),
        *((f"train/0000{n}.tar", 1) for n in range(3, 5)),
    ]
    coverage = Coverage.model_validate_json(shop.store.get(shop.layout(job).coverage))
    # Images, not tries: of the six that failed five are there by now.
    assert coverage.errors == {"not a number": 1}
    rows = shop.rows(job)
    made = sorted(row["image"] for row in rows if row["status"] == "ok")
    assert made == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    for row in rows[10:]:
        known = first[row["image"]]
        for name in ("prompt", "negative_prompt", "seed", "row", "repeat", "topic"):
            assert row[name] == known[name]
    assert [row["key"] for row in rows[10:]] == [f"00003000{n}" for n in range(4)] + ["000040000"]
    [left] = shop.rows(job, "quarantine")
    assert (left["image"], left["shard"], left["unit"]) == (5, "00003", "3")
    with tarfile.open(fileobj=io.BytesIO(after[f"{shop.layout(job).shards}00003.tar"])) as tar:
        names = tar.getnames()
    assert [name for name in names if name.endswith(".png")] == [
        "000030000.png",
        "000030001.png",
        "000030003.png",
    ]


def test_all_files_about_the_dataset_are_written_anew(shop: Workshop) -> None:
    job = done_job(shop, {1, 4})
    layout = shop.layout(job)
    success = shop.store.get(layout.success)

    retry(shop, job)
    shop.broken = set()
    shop.render(job)
    shop.finish()

    timing = json.loads(shop.store.get(layout.timing))
    assert (timing["images"], timing["ok"], timing["failed"]) == (10, 10, 0)
    assert shop.store.get(layout.success) != success
    assert shop.rows(job, "quarantine") == []
    card = shop.store.get(layout.card).decode()
    assert "2 of the pictures were made when what had failed was tried again" in card
    record = shop.record(job.id)
    assert (record.outcome, record.done_images, record.failed_images) == ("done", 10, 0)
    assert (record.round, shop.record(f"{job.id}-r1").outcome) == (1, "done")
    assert round_outcome(shop.store, layout, 1).done == 2
    assert list(shop.store.list(f"{layout.scratch}rounds/")) == []


def test_retrying_until_nothing_is_left(shop: Workshop) -> None:
    job = done_job(shop, {1, 4, 5})
    for number, broken in ((1, {4, 5}), (2, set[int]())):
        assert retry(shop, job, f"key-{number}").id == f"{job.id}-r{number}"
        shop.broken = broken
        shop.render(job)
        shop.finish()

    index = index_of(shop, job)
    assert (index.ok, index.failed) == (10, 0)
    assert [shard.first for shard in index.shards] == [0, 4, 8, 12, 16]
    made = [row["image"] for row in shop.rows(job) if row["status"] == "ok"]
    assert sorted(made) == list(range(10))
    with pytest.raises(Conflict, match="no image of the job failed"):
        retry(shop, job, "key-3")


def test_asking_again_is_the_same_retry(shop: Workshop) -> None:
    job = done_job(shop, {1, 4})

    first = retry(shop, job, "one")
    assert retry(shop, job, "one") == first.model_copy(update={"created": False})
    assert retry(shop, job, "another") == first.model_copy(update={"created": False})
    assert len(shop.queue.open_jobs()) == 1
    shop.render(job)
    shop.finish()

    assert retry(shop, job, "one") == first.model_copy(update={"created": False})
    assert shop.queue.open_jobs() == []
    assert retry(shop, job, "another").id == f"{job.id}-r2"


def test_a_job_that_has_not_ended_is_not_retried(shop: Workshop) -> None:
    job = shop.submit(ROWS)
    with pytest.raises(Conflict, match="has not ended"):
        retry(shop, job)
    with pytest.raises(NotFound):
        retry(shop, job.model_copy(update={"id": "a" * 26}))


def test_a_stopped_job_is_mended_in_two_steps(shop: Workshop) -> None:
    job = shop.submit(ROWS, repeats=2, shard_images=4, max_failed_rows=1)
    layout = shop.layout(job)
    shop.broken = {1, 2}
    shop.render(job)
    shop.finish()
    assert shop.record(job.id).outcome == "failed"
    before = shop.shards(job)

    retry(shop, job, "failed")
    shop.broken = set()
    shop.render(job)
    shop.finish()

    record = shop.record(job.id)
    assert (record.outcome, record.done_images, record.failed_images) == ("failed", 4, 0)
    assert "6 of 10 images were not rendered" in record.reason
    assert outcome_of(shop.store, layout).reason == record.reason
    assert not index_of(shop, job).complete
    with pytest.raises(Conflict, match="no image of the job failed"):
        retry(shop, job, "nothing")

    assert retry(shop, job, "all", unfinished=True).images == 6
    shop.render(job)
    shop.finish()

    after = shop.shards(job)
    assert {key: after[key] for key in before} == before
    record = shop.record(job.id)
    assert (record.outcome, record.done_images, record.reason) == ("done", 10, "")
    assert (shop.store.head(layout.outcome), index_of(shop, job).complete) == (None, True)
    rows = [row for row in shop.rows(job) if row["status"] == "ok"]
    assert sorted(row["image"] for row in rows) == list(range(10))
    whole = shop.submit(ROWS, repeats=2, shard_images=4)
    shop.render(whole)
    seeds = {row["image"]: row["seed"] for row in shop.rows(whole)}
    assert {row["image"]: row["seed"] for row in rows} == seeds


def test_a_cancelled_retry_keeps_what_it_made(shop: Workshop) -> None:
    job = done_job(shop, {0, 1, 2, 3, 8})

    asked = retry(shop, job)
    shop.broken = set()
    shop.render(job, units=1)
    shop.queue.state(asked.id, "cancel")
    shop.finish()

    assert shop.record(asked.id).outcome == "cancelled"
    index = index_of(shop, job)
    assert (index.complete, index.ok, index.failed) == (True, 9, 1)
    assert [row["image"] for row in shop.rows(job, "quarantine")] == [8]


def test_an_image_that_kills_in_a_retry_is_given_up(shop: Workshop) -> None:
    job = done_job(shop, {6, 7})
    queue, now = shop.queue, [1_900_000_000_000]
    asked = retry(shop, job)
    shop.broken = set()
    shop.queue = ShardQueue(queue._client, clock=lambda: now[0])
    for _ in range(60):
        now[0] += 100_000
        for lease in shop.claim(job, want=1):
            _, _, _, images = shop.unit_of(lease)
            if 7 in {image.index for image in images}:
                shop.queue.fail(lease.job_id, lease.unit, lease.token, "crash", "signal 11")
            else:
                shop.say_done(lease, shop.commit(lease))
    shop.queue = queue
    shop.finish()

    assert shop.record(asked.id).dead_images == 1
    [left] = shop.rows(job, "quarantine")
    assert (left["image"], left["error_kind"], left["prompt"]) == (7, "died", "prompt 3")
    made = sorted(row["image"] for row in shop.rows(job) if row["status"] == "ok")
    assert made == [n for n in range(10) if n != 7]


def test_who_was_believed_dead_does_not_add_a_second_picture(shop: Workshop, clock: Clock) -> None:
    """A shard that was split meanwhile is committed whole, by a zombie, after the job's end."""
    if not shop.store.honours_absent:
        pytest.skip("without conditional writes Redis lets no stale claim commit")
    shop.queue = ShardQueue(shop.queue._client, clock=clock)
    job = shop.submit(ROWS, repeats=2, shard_images=4)
    [zombie] = shop.claim(job)
    lease = zombie
    for _ in range(3):
        shop.queue.fail(job.id, "0", lease.token, "crash", "lost", progress=0)
        clock.forward(100_000)
        [lease] = shop.claim(job)
    shop.say_done(lease, shop.commit(lease))
    shop.broken = {3}
    shop.render(job)
    shop.finish()
    assert [shard.name for shard in index_of(shop, job).shards][:2] == [
        "train/00000-0000-0001.tar",
        "train/00000-0002-0003.tar",
    ]

    retry(shop, job)
    shop.broken = set()
    shop.commit(zombie)
    assert shop.say_done(zombie) in ("superseded", "cancelled")
    shop.render(job)
    shop.finish()

    assert shop.record(f"{job.id}-r1").outcome == "done"
    made = sorted(row["image"] for row in shop.rows(job) if row["status"] == "ok")
    assert made == list(range(10))
    assert index_of(shop, job).ok == 10


def test_a_retry_comes_back_after_redis_was_lost(shop: Workshop, client: redis.Redis) -> None:
    job = done_job(shop, {0, 1, 2, 3, 8})
    asked = retry(shop, job)
    shop.broken = {8}
    shop.render(job, units=1)
    client.flushall()

    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [asked.id]
    assert shop.record(asked.id).done_images == 4
    shop.render(job)
    shop.finish()

    index = index_of(shop, job)
    assert (index.ok, index.failed) == (9, 1)
    client.flushall()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []


class Died(BaseException):
    """The process ended here."""


def die_closing(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scheduler finish, and die before the queue's last word."""

    def died(*_words: object, **_more: object) -> str:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(shop.queue, "finish", died)
        with pytest.raises(Died):
            shop.finish()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_scheduler_that_died_before_the_last_word_does_not_undo_a_retry(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    budget = 1 if stopped else None
    job = shop.submit(ROWS, repeats=2, shard_images=4, max_failed_rows=budget)
    shop.broken = {1, 2}
    shop.render(job)
    die_closing(shop, monkeypatch)
    asked = retry(shop, job, unfinished=True)
    shop.broken = set()
    shop.render(job)
    made = shop.shards(job)

    while shop.finish():
        pass

    assert shop.shards(job) == made
    assert shop.queue.finishing() == []
    index = index_of(shop, job)
    assert (index.complete, index.ok, index.failed) == (True, 10, 0)
    assert shop.record(asked.id).outcome == "done"
    record = shop.record(job.id)
    assert (record.outcome, record.round, record.done_images) == ("done", 1, 10)


def test_a_job_that_two_finish_at_once_is_counted_once(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.submit(ROWS, repeats=2, shard_images=4)
    shop.render(job)
    finish = shop.queue.finish

    def later(*words: Any, **more: Any) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(shop.queue, "finish", finish)
            assert shop.finish() == 1
        return finish(*words, **more)

    monkeypatch.setattr(shop.queue, "finish", later)
    shop.finish()

    assert shop.record(job.id).outcome == "done"
    assert shop.queue.totals()["images:ok"] == 10


def test_a_job_made_done_by_its_retry_is_closed_as_done(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.submit(ROWS, repeats=2, shard_images=4)
    shop.render(job, units=1)
    shop.queue.state(job.id, "cancel")
    die_closing(shop, monkeypatch)
    asked = retry(shop, job, unfinished=True)
    shop.render(job)
    waiting = [asked.id]
    with monkeypatch.context() as patch:
        patch.setattr(shop.queue, "finishing", lambda: waiting)
        shop.finish()
    assert index_of(shop, job).complete
    made = shop.shards(job)

    shop.finish()

    assert shop.shards(job) == made
    record = shop.record(job.id)
    assert (record.state, record.outcome, record.done_images) == ("closed", "done", 10)


def test_a_round_that_ended_is_not_finished_over_the_next_one(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = done_job(shop, {1, 4, 5})
    first = retry(shop, job, "key-1")
    shop.broken = {4, 5}
    shop.render(job)
    die_closing(shop, monkeypatch)
    second = retry(shop, job, "key-2")
    shop.broken = set()
    shop.render(job)
    made = shop.shards(job)

    while shop.finish():
        pass

    assert shop.shards(job) == made
    assert shop.queue.finishing() == []
    assert [shop.record(one.id).outcome for one in (first, second)] == ["done", "done"]
    index = index_of(shop, job)
    assert (index.complete, index.ok, index.failed) == (True, 10, 0)
    assert shop.record(job.id).round == 2


def test_a_slow_second_scheduler_does_not_undo_a_retry(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.submit(ROWS, repeats=2, shard_images=4)
    shop.broken = {1, 4}
    shop.render(job)
    shop.finish()
    before = shop.store.get(shop.layout(job).index)

    def slow(*words: Any) -> Quarantine:
        """Meanwhile the job was finished by the other one, and retried."""
        retry(shop, job)
        shop.broken = set()
        shop.render(job)
        return write_quarantine(*words)

    monkeypatch.setattr("jobs.finish.write_quarantine", slow)
    with pytest.raises(Conflict, match="retried since"):
        finish_job(shop.store, shop.layout(job), job, Facts())
    monkeypatch.undo()

    assert "00003.tar" in {key.rpartition("/")[2] for key in shop.shards(job)}
    assert shop.store.get(shop.layout(job).index) == before
    shop.finish()
    assert index_of(shop, job).ok == 10
