"""Extending: the pictures that a larger job would have had, as new shards of the same dataset."""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis

from jobs.allowance import Allowance
from jobs.dataset_index import DatasetIndex
from jobs.errors import Conflict, InvalidInput, NoCapacity, NotFound, QuotaExceeded
from jobs.extend import extend_job
from jobs.extent import own_block
from jobs.fetch import read_index
from jobs.items import image_row, item_page
from jobs.job import ExtensionRequest, Job, Submission, image_of
from jobs.keys import Quota
from jobs.pictures import Pictures
from jobs.recover import recover_jobs
from jobs.results import outcome_of, round_outcome
from jobs.retry import retry_failed
from jobs.rounds import read_extent, rounds_of
from jobs.rows import Row
from jobs.search import search_images
from jobs.shard_queue import ShardQueue
from jobs.spool import fetch_rows
from jobs.store import Store
from jobs.templates.expansion import TemplateRequest
from jobs.templates.template import Template
from tests.rendered_jobs import CATALOG, PREFIX, TENANT, Workshop

#: On the store that ignores conditions: the harder one, and the faster server.
pytestmark = pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)

NOW = 1_700_000_100_000
ROWS = [
    Row(prompt=f"prompt {n}", negative_prompt="fog", seed=n if n % 2 else None, extra={"topic": n})
    for n in range(3)
]
MORE = [Row(prompt="added 1", extra={"topic": 7}), Row(prompt="added 2", seed=5)]


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def extend(
    shop: Workshop,
    job: Job,
    key: str = "key",
    *,
    repeats: int = 0,
    rows: Iterable[Row] | None = None,
    **more: Any,
) -> Submission:
    return extend_job(
        shop.store,
        shop.queue,
        CATALOG,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=job.id,
        request=ExtensionRequest(repeats=repeats),
        rows=rows,
        idempotency_key=key,
        now_ms=NOW,
        **more,
    )


def retry(shop: Workshop, job: Job, key: str, *, unfinished: bool = False) -> Submission:
    return retry_failed(
        shop.store,
        shop.queue,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=job.id,
        idempotency_key=key,
        unfinished=unfinished,
        now_ms=NOW,
    )


def done(shop: Workshop, job: Job, broken: Iterable[int] = ()) -> Job:
    """Render what waits and finish it."""
    shop.broken = set(broken)
    shop.render(job)
    shop.finish()
    return job


def done_job(shop: Workshop, rows: Any = ROWS, *, repeats: int = 2, **request: Any) -> Job:
    return done(shop, shop.submit(rows, repeats=repeats, shard_images=4, **request))


def index_of(shop: Workshop, job: Job) -> DatasetIndex:
    return read_index(shop.store, shop.layout(job))


def made(shop: Workshop, job: Job) -> dict[tuple[int, int], tuple[Any, ...]]:
    """(row, repeat) -> what decides its pixels and belongs to it; each with a picture once."""
    rows = [row for row in shop.rows(job) if row["status"] == "ok"]
    names = ("prompt", "negative_prompt", "seed", *job.rows.columns)
    found = {(row["row"], row["repeat"]): tuple(row[name] for name in names) for row in rows}
    assert len(found) == len(rows) == len({row["key"] for row in rows})
    assert sorted(row["image"] for row in rows) == list(range(len(rows)))
    return found


def wanted(shop: Workshop, rows: Any, repeats: int) -> dict[tuple[int, int], tuple[Any, ...]]:
    """What a job of so many repeats would have, by its own plan, as `made` tells it."""
    job = shop.submit(rows, repeats=repeats, shard_images=4)
    images = own_block(job).planned(job, 0, job.images, partial(fetch_rows, shop.store))
    assert [image.seed for image in images] == [
        image_of(job, image.index, image.row).seed for image in images
    ]
    shop.queue.state(job.id, "cancel")
    shop.finish()
    return {
        (one.row_index, one.repeat): (
            *(one.row.prompt, one.row.negative_prompt, one.seed),
            *(one.row.extra.get(name) for name in job.rows.columns),
        )
        for one in images
    }


def test_more_repeats_are_those_of_a_larger_job(shop: Workshop) -> None:
    job = done_job(shop, repeats=4)
    before = shop.shards(job)

    asked = extend(shop, job, repeats=4)
    assert (asked.id, asked.created, asked.images, asked.shards) == (f"{job.id}-r1", True, 12, 3)
    done(shop, job)

    after = shop.shards(job)
    assert {key: after[key] for key in before} == before
    index = index_of(shop, job)
    assert (index.complete, index.images, index.ok, index.failed) == (True, 24, 24, 0)
    assert [(one.name, one.round) for one in index.shards] == [
        (f"train/{n:05d}.tar", n // 3) for n in range(6)
    ]
    assert made(shop, job) == wanted(shop, ROWS, 8)
    card = shop.store.get(shop.layout(job).card).decode()
    assert "24 pictures of 3 prompts (8 each)" in card
    assert "12 of the pictures were added by an extension" in card
    record = shop.record(job.id)
    assert (record.outcome, record.done_images, record.round) == ("done", 24, 1)


def test_rows_and_repeats_after_one_another_are_a_rectangle(shop: Workshop) -> None:
    job = done_job(shop)

    assert extend(shop, job, "1", rows=MORE).images == 4
    done(shop, job)
    assert extend(shop, job, "2", repeats=1).images == 5
    done(shop, job)
    assert extend(shop, job, "3", rows=[Row(prompt="last")]).images == 3
    done(shop, job)

    assert made(shop, job) == wanted(shop, [*ROWS, *MORE, Row(prompt="last")], 3)
    extent = read_extent(shop.store, shop.layout(job), job)
    assert (extent.rows, extent.repeats, extent.images) == (6, 3, 18)


def test_a_template_is_extended(shop: Workshop) -> None:
    template = TemplateRequest(template="a {{c}} star", lists={"c": ("red", "blue")})
    job = done_job(shop, Template.of(template))

    extend(shop, job, "1", repeats=1)
    done(shop, job)
    extend(shop, job, "2", rows=[Row(prompt="a green star", extra={"c": "green"})])
    done(shop, job)

    assert len(made(shop, job)) == index_of(shop, job).ok == 9
    assert {row["c"] for row in shop.rows(job)} == {"red", "blue", "green"}
    assert wanted(shop, Template.of(template), 3).items() <= made(shop, job).items()


def test_retries_between_extensions(shop: Workshop) -> None:
    job = shop.submit(ROWS, repeats=2, shard_images=4)
    done(shop, job, {1, 4})
    extend(shop, job, "1", repeats=1)
    done(shop, job, {7})
    assert sorted(row["image"] for row in shop.rows(job, "quarantine")) == [1, 4, 7]

    assert retry(shop, job, "2").images == 3
    done(shop, job, {4})
    extend(shop, job, "3", rows=MORE)
    done(shop, job, {14})
    assert retry(shop, job, "4").images == 2
    done(shop, job)

    index = index_of(shop, job)
    assert (index.complete, index.images, index.ok, index.failed) == (True, 15, 15, 0)
    assert shop.rows(job, "quarantine") == []
    assert made(shop, job) == wanted(shop, [*ROWS, *MORE], 3)


def test_asked_again_it_is_the_same_extension(shop: Workshop) -> None:
    job = done_job(shop)
    first = extend(shop, job, "one", rows=MORE)
    same = first.model_copy(update={"created": False})

    assert extend(shop, job, "one", rows=MORE) == same
    with pytest.raises(Conflict, match="adds something else"):
        extend(shop, job, "one", repeats=1)
    with pytest.raises(Conflict, match=f"an extension of the job runs: {first.id}"):
        extend(shop, job, "two", repeats=1)
    with pytest.raises(Conflict, match="an extension of the job runs"):
        retry(shop, job, "one")
    done(shop, job)

    assert extend(shop, job, "one", rows=MORE) == same
    assert extend(shop, job, "two", repeats=1).id == f"{job.id}-r2"
    done(shop, job)
    assert extend(shop, job, "one", rows=MORE) == same
    assert len(rounds_of(shop.store, shop.layout(job))) == 2
    folders = {one.key.split("/")[-2] for one in shop.store.list(shop.layout(job).scratch)}
    assert len([name for name in folders if name.startswith("rows-")]) == 2


def test_one_that_the_queue_never_got_is_taken_up(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller died. Whoever asks has another key by then: the command line draws one."""

    def died(*_words: object, **_more: object) -> str:
        raise Died

    job = done_job(shop)
    with monkeypatch.context() as patch:
        patch.setattr(shop.queue, "submit", died)
        with pytest.raises(Died):
            extend(shop, job, "one", rows=iter(MORE))
    with pytest.raises(Conflict, match="an extension of the job runs"):
        extend(shop, job, "two", repeats=2)

    asked = extend(shop, job, "three", rows=iter(MORE))
    assert (asked.id, asked.created, asked.images) == (f"{job.id}-r1", False, 4)
    with pytest.raises(Conflict, match="an extension of the job runs"):
        extend(shop, job, "four", rows=iter(MORE))
    done(shop, job)
    assert len(made(shop, job)) == 10


def test_one_that_the_queue_has_no_room_for_was_never_asked_for(
    shop: Workshop, client: redis.Redis
) -> None:
    job = done_job(shop)
    shop.submit(ROWS)
    quota = {"quota": Quota(images_a_day=7), "allowance": Allowance(client)}
    roomy, shop.queue = shop.queue, ShardQueue(client, max_open_jobs=1)
    for _ in range(2):
        with pytest.raises(NoCapacity):
            extend(shop, job, "one", rows=iter(MORE), **quota)
    layout = shop.layout(job)
    assert rows_folders(shop, job) == {job.rows.prefix}
    assert round_outcome(shop.store, layout, 2).refused
    client.flushall()
    assert [one for one in recover_jobs(shop.store, shop.queue, PREFIX) if job.id in one] == []

    shop.queue = roomy
    assert extend(shop, job, "two", repeats=1, **quota).id == f"{job.id}-r3"
    done(shop, job)
    asked = extend(shop, job, "one", rows=iter(MORE))
    assert (asked.id, asked.created) == (f"{job.id}-r4", True)
    done(shop, job)
    assert made(shop, job) == wanted(shop, [*ROWS, *MORE], 3)


def rows_folders(shop: Workshop, job: Job) -> set[str]:
    found = [one.key for one in shop.store.list(f"{shop.layout(job).scratch}rows-")]
    return {key[: key.rindex("/") + 1] for key in found}


@pytest.mark.parametrize("keys", [("one", "one", "one"), ("one", "two", "three")])
def test_of_those_sent_at_once_there_is_one(shop: Workshop, keys: tuple[str, ...]) -> None:
    job = done_job(shop)
    gate = threading.Barrier(len(keys))

    def ask(number: int) -> Submission | Conflict:
        gate.wait(20)
        try:
            # Each another wish, unless they have one key.
            rows = [Row(prompt="added" if keys[0] == keys[1] else f"added {number}")]
            return extend(shop, job, keys[number], rows=rows)
        except Conflict as error:
            return error

    with ThreadPoolExecutor(len(keys)) as pool:
        found = list(pool.map(ask, range(len(keys))))

    accepted = [one for one in found if isinstance(one, Submission)]
    assert [one.id for one in accepted if one.created] == [f"{job.id}-r1"]
    assert {one.id for one in accepted} == {f"{job.id}-r1"}
    refused = [one for one in found if isinstance(one, Conflict)]
    assert len(accepted) == (3 if keys[0] == keys[1] else 1)
    assert all("an extension of the job runs" in str(one) for one in refused)
    (again,) = rounds_of(shop.store, shop.layout(job))
    assert again.block is not None
    brought = {one.rows.prefix for one in again.block.brought}
    assert rows_folders(shop, job) == {job.rows.prefix, *brought}
    done(shop, job)
    assert index_of(shop, job).images == 8


def test_what_cannot_be_extended_is_refused(shop: Workshop) -> None:
    job = shop.submit(ROWS, repeats=2, shard_images=4)
    with pytest.raises(Conflict, match="has not ended"):
        extend(shop, job, repeats=1)
    with pytest.raises(NotFound):
        extend(shop, job.model_copy(update={"id": "a" * 26}), repeats=1)
    shop.render(job, units=1)
    shop.queue.state(job.id, "cancel")
    shop.finish()
    with pytest.raises(Conflict, match="is not complete"):
        extend(shop, job, repeats=1)
    retry(shop, job, "rest", unfinished=True)
    with pytest.raises(Conflict, match="a retry of the job runs"):
        extend(shop, job, repeats=1)
    done(shop, job)

    refused: list[tuple[str, dict[str, Any]]] = [
        ("more repeats or of more rows", {}),
        ("more repeats or of more rows", {"repeats": 1, "rows": MORE}),
        ("over 100000", {"repeats": 100_000}),
        ("no row in it", {"rows": []}),
        ("no column 'color'", {"rows": [Row(prompt="x", extra={"color": "red"})]}),
        ("holds string values", {"rows": [Row(prompt="x", extra={"topic": "red"})]}),
    ]
    for words, wish in refused:
        with pytest.raises(InvalidInput, match=words):
            extend(shop, job, "bad", **wish)
    quota = Quota(images_a_day=4)
    with pytest.raises(QuotaExceeded):
        extend(
            shop,
            job,
            "dear",
            rows=MORE[:1] * 3,
            quota=quota,
            allowance=Allowance(shop.queue._client),
        )
    folders = [one.key for one in shop.store.list(f"{shop.layout(job).scratch}rows-")]
    assert all(key.startswith(job.rows.prefix) for key in folders)
    assert extend(shop, job, "good", rows=MORE).created


def test_a_cancelled_extension_leaves_its_images_to_be_made_later(shop: Workshop) -> None:
    job = done_job(shop)
    asked = extend(shop, job, "1", repeats=2)
    shop.render(job, units=1)
    shop.queue.state(asked.id, "cancel")
    shop.finish()

    layout, index = shop.layout(job), index_of(shop, job)
    assert (index.complete, index.images, index.ok) == (False, 12, 10)
    assert shop.store.head(layout.success) is None
    record, told = shop.record(job.id), outcome_of(shop.store, layout)
    assert (record.outcome, record.done_images) == ("cancelled", 10)
    assert (told.state, told.done) == ("cancelled", 10)
    assert f"its extension {asked.id} was cancelled" in told.reason
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []

    assert retry(shop, job, "2", unfinished=True).images == 2
    done(shop, job)

    assert index_of(shop, job).complete
    assert shop.record(job.id).outcome == "done"
    assert (shop.store.head(layout.outcome), outcome_of(shop.store, layout).state) == (None, "done")
    assert made(shop, job) == wanted(shop, ROWS, 4)


class Died(BaseException):
    """The process ended here."""


def test_a_job_that_the_queue_still_holds_open_is_closed_as_its_extension_left_it(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler died between `_SUCCESS` and the queue's last word, and came back late."""

    def died(*_words: object, **_more: object) -> str:
        raise Died

    job = shop.submit(ROWS, repeats=2, shard_images=4)
    shop.render(job)
    with monkeypatch.context() as patch:
        patch.setattr(shop.queue, "finish", died)
        with pytest.raises(Died):
            shop.finish()
    asked = extend(shop, job, repeats=2)
    shop.render(job, units=1)
    shop.queue.state(asked.id, "cancel")
    with monkeypatch.context() as patch:
        patch.setattr(shop.queue, "finishing", lambda: [asked.id])
        shop.finish()
    made_before = shop.shards(job)

    shop.finish()

    assert shop.shards(job) == made_before
    assert shop.queue.finishing() == []
    record = shop.record(job.id)
    assert (record.state, record.outcome, record.done_images) == ("closed", "cancelled", 10)


def test_an_extension_that_fails_too_often_is_stopped(shop: Workshop) -> None:
    job = done_job(shop, max_failed_rows=1)
    asked = extend(shop, job, "1", repeats=2)
    done(shop, job, range(6, 12))

    assert shop.record(asked.id).outcome == "failed"
    assert shop.record(job.id).outcome == "failed"
    assert shop.store.head(shop.layout(job).success) is None
    assert retry(shop, job, "2", unfinished=True).images == 6
    done(shop, job)
    assert shop.record(job.id).outcome == "done"
    assert len(made(shop, job)) == 12


def test_a_share_that_may_fail_is_of_the_extension_s_own_images(shop: Workshop) -> None:
    job = done_job(shop, max_failed_rows=0.5)
    asked = extend(shop, job, "1", repeats=4)
    assert [shop.record(one).max_failed for one in (job.id, asked.id)] == [3, 6]
    done(shop, job, range(6, 13))
    assert shop.record(job.id).outcome == "failed"

    retry(shop, job, "2", unfinished=True)
    done(shop, job, range(6, 15))
    # Nine of eighteen images are half of them.
    assert shop.record(job.id).outcome == "done"


def test_a_job_that_was_cancelled_when_all_was_made_is_not_sent_to_a_retry(shop: Workshop) -> None:
    job = shop.submit(ROWS, shard_images=4)
    [lease] = shop.claim(job)
    shop.commit(lease)
    shop.queue.state(job.id, "cancel")
    shop.queue.fail(job.id, lease.unit, lease.token, "release")
    shop.finish()

    assert outcome_of(shop.store, shop.layout(job)).done == 3
    with pytest.raises(Conflict, match="there is nothing to retry"):
        retry(shop, job, "1", unfinished=True)
    with pytest.raises(Conflict, match="cancelled, though all its images were made") as refused:
        extend(shop, job, "2", repeats=1)
    assert "retry" not in (refused.value.remedy or "")


def test_a_deleted_extension_never_was(shop: Workshop) -> None:
    job = done_job(shop)
    layout = shop.layout(job)
    before = {one.key: one.etag for one in shop.store.list(layout.root)}
    asked = extend(shop, job, "1", rows=[*MORE, *MORE])
    shop.render(job, units=1)
    shop.queue.state(asked.id, "cancel", discard=True)
    shop.finish()

    after = {one.key: one.etag for one in shop.store.list(layout.root)}
    assert {key: etag for key, etag in after.items() if "/rounds/" not in key} == before
    assert round_outcome(shop.store, layout, 1).deleted
    assert rows_folders(shop, job) == {job.rows.prefix}
    assert (shop.record(asked.id).outcome, shop.record(job.id).outcome) == ("cancelled", "done")

    extend(shop, job, "2", repeats=1)
    done(shop, job)
    assert (index_of(shop, job).complete, index_of(shop, job).images) == (True, 9)
    assert made(shop, job) == wanted(shop, ROWS, 3)


def test_it_comes_back_after_redis_was_lost(shop: Workshop, client: redis.Redis) -> None:
    job = done_job(shop)
    asked = extend(shop, job, repeats=2)
    shop.render(job, units=1)
    client.flushall()

    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [asked.id]
    assert shop.record(asked.id).done_images == 4
    done(shop, job)

    assert made(shop, job) == wanted(shop, ROWS, 4)
    client.flushall()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []


def test_added_images_are_shown_with_the_others(shop: Workshop) -> None:
    job = done_job(shop)
    layout = shop.layout(job)
    extend(shop, job, "1", rows=MORE)
    shop.broken = {8}
    shop.render(job, units=1)

    page = item_page(shop.store, layout, job, first=0, limit=100)
    assert (len(page.items), page.next) == (6, 6)
    more = item_page(shop.store, layout, job, first=6, limit=100)
    assert [(one.image, one.row, one.repeat, one.status) for one in more.items] == [
        *((6, 3, 0, "ok"), (7, 3, 1, "ok"), (8, 4, 0, "failed"), (9, 4, 1, "ok"))
    ]
    assert more.next is None
    done(shop, job)
    extend(shop, job, "2", repeats=1)

    waiting = item_page(shop.store, layout, job, first=10, limit=3).items
    assert [(one.image, one.prompt, one.repeat, one.status, one.key) for one in waiting] == [
        (10, "prompt 0", 2, "pending", "000030000"),
        (11, "prompt 1", 2, "pending", "000030001"),
        (12, "prompt 2", 2, "pending", "000030002"),
    ]
    done(shop, job)
    retry(shop, job, "3")
    done(shop, job)
    extent = read_extent(shop.store, layout, job)
    found, after = search_images(shop.store, extent, "added", first=0, limit=3)
    assert (found, after) == ([], 6)
    assert search_images(shop.store, extent, "added", first=6, limit=3) == ([6, 7, 8], 9)
    assert search_images(shop.store, extent, "added", first=10, limit=9) == ([13, 14], None)
    for image, name in ((8, "00005"), (14, "00004")):
        row = image_row(shop.store, layout, job, image)
        assert row is not None
        assert (row["image"], row["shard"], row["status"]) == (image, name, "ok")
        assert Pictures(shop.store).read(layout, job, image).sha256 == row["sha256"]
    with pytest.raises(NotFound, match="15 images"):
        Pictures(shop.store).read(layout, job, 15)
