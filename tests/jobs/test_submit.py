"""Submitting is one job per key, whatever happens between its steps."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from jobs.allowance import DAY_S, Allowance
from jobs.catalog import load_catalog
from jobs.errors import Conflict, InvalidInput, NoCapacity, NotFound, Unreachable
from jobs.job import MAX_SHARDS, JobRequest, Submission, job_id
from jobs.keys import Quota
from jobs.layout import JobLayout
from jobs.queue_speeds import Speed
from jobs.queue_values import SubmitReply, SubmitRequest
from jobs.recipe import RecipeRequest
from jobs.redis_client import heartbeat_client
from jobs.row_checks import device_seconds
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.specs import read_job
from jobs.store import Store
from jobs.submit import dry_run_job, submit_job

CATALOG = load_catalog()
PREFIX, TENANT, NOW = "datasets", "ann", 1_700_000_000_000
ROWS = (Row(prompt="a red circle"), Row(prompt="a blue star", seed=7))


class Died(BaseException):
    """The process ended here."""


class DeafQueue(ShardQueue):
    """A queue that is told of a job by a process that dies before it does so."""

    def submit(self, request: SubmitRequest, *, restoring: bool = False) -> SubmitReply:
        raise Died


def submit(
    store: Store,
    queue: ShardQueue,
    key: str = "key",
    request: JobRequest | None = None,
    rows: tuple[Row, ...] = ROWS,
    now_ms: int = NOW,
    **grants: Any,
) -> Submission:
    return submit_job(
        store,
        queue,
        CATALOG,
        prefix=PREFIX,
        tenant=TENANT,
        request=request or JobRequest(),
        rows=rows,
        idempotency_key=key,
        now_ms=now_ms,
        **grants,
    )


def test_a_job_sent_again_on_another_day_counts_no_more(
    store: Store, queue: ShardQueue, client: redis.Redis
) -> None:
    now = [DAY_S * 100.0]
    allowance = Allowance(client, clock=lambda: now[0])
    grants = {"quota": Quota(images_a_day=len(ROWS)), "allowance": allowance}

    assert submit(store, queue, "one", **grants).created
    now[0] += DAY_S
    assert not submit(store, queue, "one", **grants).created
    assert submit(store, queue, "two", **grants).created


def test_an_image_costs_what_finished_jobs_measured(store: Store, queue: ShardQueue) -> None:
    recipe = CATALOG.resolve(RecipeRequest())
    guessed = queue.job(submit(store, queue, "first").id)
    queue.note_speed(recipe.batch_key, Speed("H100", 100, 3.0, 9.0))
    queue.note_speed(recipe.batch_key, Speed("L4", 300, 37.0, 90.0))
    measured = queue.job(submit(store, queue, "second").id)
    assert guessed is not None
    assert measured is not None
    assert guessed.unit_cost == device_seconds(recipe)
    assert measured.unit_cost == 0.1


def keys(store: Store) -> list[str]:
    return [found.key for found in store.list("")]


def test_a_job_is_written_down_and_queued(store: Store, queue: ShardQueue) -> None:
    done = submit(store, queue, request=JobRequest(repeats=3, seed=5, priority=7, name="two"))

    job = read_job(store, PREFIX, TENANT, done.id)
    record = queue.job(done.id)
    assert record is not None
    assert (done.created, done.images, done.shards) == (True, 6, 1)
    assert (job.images, job.seed, job.priority, job.name, job.submitted_ms) == (6, 5, 7, "two", NOW)
    assert job.rows.count == 2
    assert job.rows.prefix.startswith(f"{PREFIX}/_scratch/{TENANT}/{done.id}/rows-")
    assert (record.images, record.priority, record.state) == (6, 7, "run")
    assert record.engine_key == job.recipe.engine_key


def test_the_same_key_is_the_same_job(store: Store, queue: ShardQueue) -> None:
    first = submit(store, queue)
    written = keys(store)

    again = submit(store, queue, now_ms=NOW + 60_000)

    assert (first.created, again.created) == (True, False)
    assert again.id == first.id
    assert keys(store) == written
    assert read_job(store, PREFIX, TENANT, first.id).submitted_ms == NOW


@pytest.mark.parametrize(
    ("request_", "rows"),
    [
        (JobRequest(repeats=2), ROWS),
        (JobRequest(), (*ROWS, Row(prompt="a green ring"))),
        (JobRequest(), (ROWS[0], Row(prompt="a blue star", seed=8))),
        (JobRequest(recipe=RecipeRequest(steps=2)), ROWS),
    ],
    ids=["request", "more rows", "another row", "recipe"],
)
def test_the_same_key_for_another_job_is_a_conflict_that_changes_nothing(
    store: Store, queue: ShardQueue, request_: JobRequest, rows: tuple[Row, ...]
) -> None:
    first = submit(store, queue)
    written = {key: store.get(key) for key in keys(store)}

    with pytest.raises(Conflict, match=first.id):
        submit(store, queue, request=request_, rows=rows)

    assert {key: store.get(key) for key in keys(store)} == written


def test_a_drawn_seed_is_drawn_once(store: Store, queue: ShardQueue) -> None:
    one = read_job(store, PREFIX, TENANT, submit(store, queue, "one").id)
    two = read_job(store, PREFIX, TENANT, submit(store, queue, "two").id)
    store.delete(keys(store))
    again = read_job(store, PREFIX, TENANT, submit(store, queue, "one").id)

    assert one.seed != two.seed
    assert again.seed == one.seed
    assert again.request_sha256 == one.request_sha256 == two.request_sha256


def test_death_before_the_queue_heals_when_sent_again(store: Store, client: redis.Redis) -> None:
    with pytest.raises(Died):
        submit(store, DeafQueue(client))
    queue = ShardQueue(client)
    name = job_id(TENANT, "key")
    assert queue.job(name) is None
    written = keys(store)

    done = submit(store, queue)

    assert (done.id, done.created) == (name, True)
    assert queue.job(name) is not None
    assert keys(store) == written


def test_death_while_spooling_heals_when_sent_again(store: Store, queue: ShardQueue) -> None:
    def rows() -> Iterator[Row]:
        for number in range(2_500):
            yield Row(prompt=f"a red circle {number}")
        raise Died

    with pytest.raises(Died):
        submit_job(
            store,
            queue,
            CATALOG,
            prefix=PREFIX,
            tenant=TENANT,
            request=JobRequest(),
            rows=rows(),
            idempotency_key="key",
            now_ms=NOW,
        )
    layout = JobLayout(prefix=PREFIX, tenant=TENANT, job_id=job_id(TENANT, "key"))
    with pytest.raises(NotFound):
        read_job(store, PREFIX, TENANT, layout.job_id)

    assert submit(store, queue).created


def test_a_job_done_long_ago_is_not_made_again(
    store: Store, queue: ShardQueue, client: redis.Redis
) -> None:
    done = submit(store, queue)
    layout = JobLayout(prefix=PREFIX, tenant=TENANT, job_id=done.id)
    store.put(layout.success, b"")
    client.flushall()

    again = submit(store, queue)

    assert (again.id, again.created) == (done.id, False)
    assert queue.job(done.id) is None


def test_a_full_queue_says_so_and_the_job_can_be_sent_again(
    store: Store, client: redis.Redis
) -> None:
    first = submit(store, ShardQueue(client), "first")
    full = ShardQueue(client, max_open_jobs=1)
    with pytest.raises(NoCapacity, match="open") as caught:
        submit(store, full, "second")
    assert caught.value.http_status == 503

    ShardQueue(client).state(first.id, "cancel")
    assert ShardQueue(client).finish(first.id, "cancelled") == "ok"

    assert submit(store, full, "second").created


def test_bad_rows_leave_nothing_behind(store: Store, queue: ShardQueue) -> None:
    def rows() -> Iterator[Row]:
        for number in range(2_500):
            yield Row(prompt=f"a red circle {number}")
        raise InvalidInput("the prompt is blank", where="line 2501")

    with pytest.raises(InvalidInput, match="line 2501"):
        submit(store, queue, rows=rows())  # type: ignore[arg-type]

    assert keys(store) == []


def test_a_bad_recipe_is_refused_before_a_row_is_read(store: Store, queue: ShardQueue) -> None:
    def rows() -> Iterator[Row]:
        raise AssertionError("a row was read")
        yield

    with pytest.raises(InvalidInput, match="steps"):
        submit(store, queue, request=JobRequest(recipe=RecipeRequest(steps=99)), rows=rows())  # type: ignore[arg-type]


def test_too_many_shards_are_refused_with_the_size_that_fits(
    store: Store, queue: ShardQueue
) -> None:
    rows = tuple(Row(prompt=f"p{number}") for number in range(81))
    with pytest.raises(InvalidInput, match=f"more than {MAX_SHARDS} shards") as caught:
        submit(store, queue, request=JobRequest(repeats=100_000, shard_images=1), rows=rows)

    assert caught.value.where == "shard_images"
    assert caught.value.remedy is not None
    assert "at least 2" in caught.value.remedy
    assert keys(store) == []


def test_nothing_is_written_while_the_queue_is_away(store: Store) -> None:
    with heartbeat_client("redis://127.0.0.1:1/0") as gone, pytest.raises(Unreachable):
        submit(store, ShardQueue(gone))

    assert keys(store) == []


@pytest.mark.parametrize(
    ("request_", "row", "warning"),
    [
        (JobRequest(), Row(prompt="a", negative_prompt="b"), "negative prompt"),
        (JobRequest(), Row(prompt="word " * 76), "77 tokens"),
        (JobRequest(quality=50), Row(prompt="a"), "lossless"),
    ],
    ids=["negative", "long", "quality"],
)
def test_what_has_no_effect_is_said(
    store: Store, queue: ShardQueue, request_: JobRequest, row: Row, warning: str
) -> None:
    done = submit(store, queue, request=request_, rows=(row,))

    assert len(done.warnings) == 1
    assert warning in done.warnings[0]
    assert read_job(store, PREFIX, TENANT, done.id).warnings == done.warnings


def test_guided_recipes_are_not_warned_of_negative_prompts(store: Store, queue: ShardQueue) -> None:
    request = JobRequest(recipe=RecipeRequest(guidance=1.5))
    done = submit(store, queue, request=request, rows=(Row(prompt="a", negative_prompt="b"),))

    assert done.warnings == ()


def test_a_dry_run_counts_as_the_real_one(store: Store, queue: ShardQueue) -> None:
    request = JobRequest(repeats=10, shard_images=3)
    dry = dry_run_job(CATALOG, tenant=TENANT, request=request, rows=ROWS, idempotency_key="key")
    assert keys(store) == []

    real = submit(store, queue, request=request)

    assert dry == real.model_copy(update={"created": False})
