"""Near-duplicates across shards: turned away as their job is finished, once and for good."""

import json
import random
import tarfile
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis

from jobs import finish
from jobs.dataset_index import DatasetIndex
from jobs.drop import drop_rows
from jobs.extend import extend_job
from jobs.fetch import read_index
from jobs.filters import FilterRequest
from jobs.finish import Facts
from jobs.items import items_of
from jobs.job import ExtensionRequest, Job
from jobs.pictures import Pictures
from jobs.quarantine import quarantine_rows
from jobs.raising import change_budget
from jobs.recover import recover_jobs
from jobs.results import outcome_of, round_outcome
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.undo_drop import undo_drop
from tests.chaos.examine import read_dataset
from tests.rendered_jobs import CATALOG, PREFIX, TENANT, Workshop

#: On the store that ignores conditions: the harder one, and the faster server.
pytestmark = pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)

NOW = 1_700_000_100_000
ROWS = [Row(prompt=f"prompt {n}", extra={"topic": n}) for n in range(10)]
#: Looks that resemble no other.
OWN = [random.Random(n).getrandbits(64) for n in range(40)]
#: Image -> hash. 4 resembles 1, 5 is just like 4, 7 is like both and no more like 1; 9 resembles 8.
CHAIN = dict(enumerate(OWN[:10])) | dict.fromkeys((4, 5), OWN[1] ^ 0b11)
CHAIN |= {7: OWN[1] ^ 0b1111, 9: OWN[8] ^ 1}
#: Image -> the first one that it resembles, and how far it is.
TWINS = {4: (1, 2), 5: (1, 2), 7: (4, 2), 9: (8, 1)}


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def made(shop: Workshop, policy: str, looks: dict[int, int] = CHAIN, **request: Any) -> Job:
    """A job of ten images whose pictures look so; rendered, not finished."""
    asked = FilterRequest.model_validate({"name": "near_duplicate", "policy": policy})
    job = shop.submit(ROWS, **{"shard_images": 3, "filters": (asked,)} | request)
    shop.looks = dict(looks)
    shop.render(job)
    return job


def asked(job: Job) -> dict[str, Any]:
    return {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": NOW}


def index_of(shop: Workshop, job: Job) -> DatasetIndex:
    return read_index(shop.store, shop.layout(job))


def contents(shop: Workshop, job: Job) -> dict[str, str]:
    """The files that the index names, and their digests."""
    index = index_of(shop, job)
    files = [file for shard in index.shards for file in (shard, shard.parquet)]
    return {file.name: file.sha256 for file in (*files, *index.quarantine)}


def tars(shop: Workshop, job: Job) -> dict[str, str]:
    """Of these the tars: rows also tell how long an upload took."""
    return {name: one for name, one in contents(shop, job).items() if name.endswith(".tar")}


def turned_away(shop: Workshop, job: Job) -> dict[int, tuple[int, int]]:
    """Image -> which image it resembles, by how many bits: of the quarantine's rows."""
    rows = shop.rows(job)
    images = {row["key"]: row["image"] for row in rows}
    return {
        row["image"]: (images[row["duplicate_of"]], int(row["score_near_duplicate"]))
        for row in rows
        if row["error"] == "rejected:near_duplicate"
    }


def agrees(shop: Workshop, job: Job) -> set[int]:
    """The images of which there are pictures; everything that tells of them tells the same."""
    layout, index = shop.layout(job), index_of(shop, job)
    found = read_dataset(shop.store, layout)
    assert found.wrong == []
    assert (index.ok, index.failed) == (len(found.pictures), len(found.failed))
    record, ended = shop.record(job.id), outcome_of(shop.store, layout)
    assert (record.outcome, record.done_images, record.failed_images) == (
        *("done", index.ok),
        index.failed,
    )
    assert (ended.done, ended.failed) == (index.ok, index.failed)
    assert sorted(row["image"] for row in quarantine_rows(shop.store, layout)) == sorted(
        found.failed
    )
    kept, seen = [row["phash"] for row in shop.rows(job) if row["status"] == "ok"], set[int]()
    for text in kept:
        assert all((int(text, 16) ^ one).bit_count() > 3 for one in seen)
        seen.add(int(text, 16))
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []
    return set(found.pictures)


@pytest.mark.parametrize("shard_images", [1, 3, 10])
def test_the_same_go_whatever_the_shards(shop: Workshop, shard_images: int) -> None:
    job = made(shop, "drop", shard_images=shard_images)
    assert shop.finish() == 1

    assert agrees(shop, job) == set(range(10)) - TWINS.keys()
    # The renderer of 5 saw 4 beside it first.
    assert turned_away(shop, job) == TWINS | ({5: (4, 0)} if shard_images == 3 else {})
    index = index_of(shop, job)
    assert (index.complete, index.duplicates, index.rejects) == (True, 0, {"near_duplicate": 4})
    assert pq.read_table(BytesIO(shop.store.get(shop.layout(job).duplicates))).num_rows == 0
    told = {image: "rejected:near_duplicate" for image in TWINS}
    assert read_dataset(shop.store, shop.layout(job)).failed == told


def test_they_lie_in_the_quarantine_with_those_of_their_own_shard(shop: Workshop) -> None:
    job = made(shop, "drop")
    own = {row["image"]: row for row in shop.rows(job)}
    # 5 is like 4 beside it: its renderer saw that, and nothing of 1.
    assert [n for n, row in own.items() if row["status"] == "failed"] == [5]
    before = {key.rpartition("/")[2]: data for key, data in shop.shards(job).items()}
    shop.finish()

    index, layout = index_of(shop, job), shop.layout(job)
    assert [shard.name for shard in index.shards] == [
        "train/00000.tar",
        *(f"train/0000{n}-r0000.tar" for n in (1, 2, 3)),
    ]
    assert shop.store.get(layout.shards + "00000.tar") == before["00000.tar"]
    tars = [file.name for file in index.quarantine if file.name.endswith(".tar")]
    assert tars == [f"quarantine/0000{n}.tar" for n in (1, 2, 3)]
    with tarfile.open(fileobj=BytesIO(shop.store.get(layout.root + tars[0]))) as tar:
        assert tar.getnames() == [
            f"{key}.{kind}" for key in ("000010001", "000010002") for kind in ("png", "txt", "json")
        ]
        rows = [json.load(tar.extractfile(f"00001000{n}.json")) for n in (1, 2)]  # type: ignore[arg-type]
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert [row["turned_away"] for row in rows] == ["near_duplicate", "near_duplicate"]
    assert rows[0]["duplicate_of"] == own[1]["key"]
    items = items_of(shop.store, layout, job, [3, 4])
    assert [one.status for one in items] == ["ok", "failed"]
    assert Pictures(shop.store).read(layout, job, 6).sha256 == own[6]["sha256"]
    coverage = json.loads(shop.store.get(layout.coverage))
    assert (coverage["made"], coverage["rejects"]) == (6, {"near_duplicate": 4})


class Died(BaseException):
    """The process ended here."""


def some_strays(store: Store, layout: Any, *_more: object) -> None:
    """Dies with half of what was written anew removed."""
    store.delete([f"{layout.shards}00002.tar", f"{layout.shards}00002_stats.json"])
    raise Died


def nothing(*_words: object, **_more: object) -> Any:
    raise Died


STEPS = [
    *("jobs.rewriting.status_dict", "jobs.finish.failed_rows", "jobs.finish.write_duplicates"),
    *("jobs.finish.croissant", "jobs.finish._remove_strays", "jobs.finish._write_success"),
    "scheduler.finish.note_timing",
]


@pytest.mark.parametrize("output", ["webdataset", "objects"])
def test_a_finish_that_dies_finds_the_same_when_it_is_repeated(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    undisturbed = made(shop, "drop", output=output)
    shop.finish()
    wanted = tars(shop, undisturbed)
    job = made(shop, "drop", output=output)

    for step in STEPS if output == "webdataset" else STEPS[1::2]:
        with monkeypatch.context() as patch:
            patch.setattr(step, some_strays if "strays" in step else nothing)
            with pytest.raises(Died):
                shop.finish()

    shop.finish()
    assert agrees(shop, job) == set(range(10)) - TWINS.keys()
    assert tars(shop, job) == wanted
    pictures = {one.key.rpartition("/")[2] for one in shop.store.list(shop.layout(job).pictures)}
    made_names = {row["file_name"] for row in shop.rows(job) if row["file_name"]}
    assert pictures == (made_names if output == "objects" else set())
    once = contents(shop, job)
    assert finish.finish_job(shop.store, shop.layout(job), job, Facts()).ok == 6
    assert contents(shop, job) == once


def test_each_death_alone_is_mended(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    """The steps after one another hide what the first of them left."""
    wanted: dict[str, str] = {}
    for step in ("jobs.rewriting.value_counts", "jobs.finish._remove_strays"):
        job = made(shop, "drop")
        with monkeypatch.context() as patch:
            patch.setattr(step, some_strays if "strays" in step else nothing)
            with pytest.raises(Died):
                shop.finish()
        client.flushdb()
        assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == [job.id]
        shop.finish()
        assert agrees(shop, job) == set(range(10)) - TWINS.keys()
        wanted = wanted or tars(shop, job)
        assert tars(shop, job) == wanted


def test_a_retry_goes_on_with_the_next_seed(shop: Workshop) -> None:
    job = made(shop, "retry", accept=1)
    shop.finish()
    assert agrees(shop, job) == set(range(10)) - TWINS.keys()
    assert index_of(shop, job).rows_short == 4
    first = {row["image"]: row["seed"] for row in shop.rows(job)}
    layout, old = shop.layout(job), shop.shards(job)

    # 4 and 5 become like each other, and 7 like 2.
    shop.looks |= {4: OWN[20], 5: OWN[20], 7: OWN[2], 9: OWN[29]}
    again = retry_failed(shop.store, shop.queue, **asked(job), idempotency_key="one")
    assert again.images == 4
    shop.render(job)
    shop.finish()

    assert agrees(shop, job) == set(range(10)) - {5, 7}
    assert {key: shop.store.get(key) for key in old} == old
    index = index_of(shop, job)
    assert [one.name for one in index.shards if one.round] == [
        *("train/00004-r0001.tar", "train/00005.tar")
    ]
    assert (index.rows_short, index.rejects) == (2, {"near_duplicate": 6})
    later = {row["image"]: row for row in shop.rows(job) if row["seed_try"] == 1}
    assert later.keys() == TWINS.keys()
    assert all(row["seed"] != first[image] for image, row in later.items())
    done = round_outcome(shop.store, layout, 1)
    record = shop.record(again.id)
    assert (done.done, done.failed) == (record.done_images, record.failed_images) == (2, 2)

    # What was turned away before takes nobody's place.
    shop.looks |= {5: CHAIN[7], 7: OWN[27]}
    retry_failed(shop.store, shop.queue, **asked(job), idempotency_key="two")
    shop.render(job)
    shop.finish()
    assert agrees(shop, job) == set(range(10))
    assert {row["image"] for row in shop.rows(job) if row["seed_try"] == 2} == {5, 7}
    assert index_of(shop, job).rows_short == 0


def test_what_is_kept_is_only_listed(shop: Workshop) -> None:
    job = made(shop, "keep")
    before = shop.shards(job)
    shop.finish()

    index, layout = index_of(shop, job), shop.layout(job)
    assert (index.ok, index.failed, index.duplicates) == (10, 0, 4)
    assert shop.shards(job) == before
    rows = pq.read_table(BytesIO(shop.store.get(layout.duplicates))).to_pylist()
    images = {row["key"]: row["image"] for row in shop.rows(job)}
    found = {row["image"]: (images[row["duplicate_of"]], row["distance"]) for row in rows}
    assert found == TWINS


def test_of_two_the_one_goes_that_no_index_had(shop: Workshop) -> None:
    """An extension's pictures are compared with all, and take none of the others' place."""
    job = made(shop, "drop")
    shop.finish()
    old = shop.shards(job)
    shop.looks |= {n: OWN[n] for n in range(10, 20)} | {12: CHAIN[3], 15: CHAIN[5]}
    wish = asked(job) | {"request": ExtensionRequest(repeats=1), "idempotency_key": "more"}
    extend_job(shop.store, shop.queue, CATALOG, **wish)
    shop.render(job)
    shop.finish()

    # 15 is like 5 and 4, which are in the dataset no more, and so like 1.
    assert agrees(shop, job) == set(range(20)) - TWINS.keys() - {12, 15}
    assert {key: shop.store.get(key) for key in old} == old
    assert turned_away(shop, job)[15] == (1, 2)


def test_a_job_that_goes_on_at_another_limit_keeps_what_it_gave_out(shop: Workshop) -> None:
    looks = CHAIN | {0: CHAIN[4], 8: CHAIN[2]}
    job = made(shop, "drop", looks, max_images=7, shard_images=2)
    shop.finish()
    layout = shop.layout(job)
    found = read_index(shop.store, layout)
    assert (found.complete, found.ok, found.failed) == (False, 4, 3)
    assert (outcome_of(shop.store, layout).done, shop.record(job.id).done_images) == (4, 4)
    before = shop.shards(job)

    change_budget(shop.store, shop.queue, layout, job, job.id, {"max_images": 10})
    shop.render(job)
    shop.finish()

    after = shop.shards(job)
    assert {key: after[key] for key in before if "00003" not in key}.items() <= before.items()
    assert turned_away(shop, job).keys() == {1, 4, 5, 7, 8}
    assert agrees(shop, job) == {0, 2, 3, 6, 9}


def test_what_is_dropped_by_hand_goes_back_as_it_was(shop: Workshop) -> None:
    job = made(shop, "drop", output="imagefolder")
    shop.finish()
    before = contents(shop, job)
    wish = asked(job)
    drop_rows(shop.store, shop.queue, Facts(), **wish, where="image in (3, 4)", idempotency_key="a")
    assert [one.name for one in index_of(shop, job).shards][1] == "train/00001-r0001.tar"
    assert agrees(shop, job) == {0, 1, 2, 6, 8}
    undo_drop(shop.store, shop.queue, Facts(), **wish)
    assert contents(shop, job) == before
    assert agrees(shop, job) == set(range(10)) - TWINS.keys()
    root = shop.layout(job).root
    names = {one.key.removeprefix(f"{root}imagefolder/train/") for one in shop.store.list(root)}
    assert {"00001-r0000/000010000.png", "00001-r0000/metadata.jsonl"} <= names
    assert not {name for name in names if name.startswith("00001/") or "000010001.png" in name}
