"""Dropping: rows go from shards, index and counts; what stays is the same, and all can go back."""

import json
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis

import jobs.drop
from jobs.drop import Dropped, drop_rows, look
from jobs.errors import Conflict, InvalidInput, LeaseLost, Unreachable
from jobs.extend import extend_job
from jobs.fetch import read_index
from jobs.filters import FilterRequest
from jobs.finish import Facts
from jobs.items import item_page
from jobs.job import ExtensionRequest, Job
from jobs.original_rows import read_original
from jobs.pictures import Pictures
from jobs.recover import recover_jobs
from jobs.results import outcome_of
from jobs.retry import retry_failed
from jobs.rounds import order_of_accepted, read_accepted
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import ObjectInfo, Store
from jobs.sweep import OLD_MS, sweep
from jobs.undo_drop import undo_drop
from tests.chaos.examine import read_dataset
from tests.rendered_jobs import CATALOG, PREFIX, TENANT, Workshop

#: On the store that ignores conditions: the harder one, and the faster server.
pytestmark = pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)

NOW = 1_700_000_100_000
#: Sequences that are tried; `make repairs` tries many.
SEQUENCES = int(os.environ.get("FEWSTEP_TEST_SEQUENCES", "1"))
ROWS = [Row(prompt=f"prompt {n}", extra={"topic": n}) for n in range(5)]
TWINS = (FilterRequest(name="near_duplicate", policy="drop", at_least=1),)


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def asked(shop: Workshop, job: Job) -> dict[str, Any]:
    return {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": NOW}


def drop(shop: Workshop, job: Job, where: str, key: str = "key") -> Dropped:
    wish = asked(shop, job) | {"where": where, "idempotency_key": key}
    return drop_rows(shop.store, shop.queue, Facts(), **wish)


def undo(shop: Workshop, job: Job) -> Dropped:
    return undo_drop(shop.store, shop.queue, Facts(), **asked(shop, job))


def retry(shop: Workshop, job: Job, key: str) -> None:
    retry_failed(shop.store, shop.queue, **asked(shop, job), idempotency_key=key)


def done_job(shop: Workshop, broken: set[int], **request: Any) -> Job:
    """Ten images in three shards, `broken` of them without a picture."""
    job = shop.submit(ROWS, repeats=2, shard_images=4, **request)
    shop.broken = broken
    shop.render(job)
    shop.finish()
    return job


def files(shop: Workshop, job: Job) -> dict[str, bytes]:
    """Every file of the dataset, but for those about it and its rounds."""
    root = shop.layout(job).root
    keys = [one.key for one in shop.store.list(root)]
    folders = ("train/", "images/", "quarantine/", "index.json")
    names = [key.removeprefix(root) for key in keys]
    return {name: shop.store.get(root + name) for name in names if name.startswith(folders)}


@pytest.mark.parametrize("output", ["webdataset", "objects"])
def test_a_queue_that_went_back_in_time_brings_no_dropped_row_back(
    shop: Workshop, output: str
) -> None:
    """It hands out the shards of a job that has ended: those that were replaced are made again."""
    job = done_job(shop, {1, 8}, output=output)
    servers, wish = (shop.store, shop.queue, CATALOG), ExtensionRequest(repeats=1)
    added = extend_job(*servers, **asked(shop, job), request=wish, idempotency_key="more")
    shop.render(job)
    shop.finish()
    drop(shop, job, "topic = 1 or image = 8 or image = 11")
    before, every = files(shop, job), {one.key for one in shop.store.list(shop.layout(job).root)}

    for queue_id in (job.id, added.id):
        accepted = read_accepted(shop.store, PREFIX, TENANT, queue_id)
        assert shop.queue.forget(queue_id) == "closed"
        shop.queue.submit(order_of_accepted(accepted))
    again = shop.claim(job, 9)
    assert len(again) == 5
    for lease in again:
        with suppress(LeaseLost):
            # One that is where it was is adopted by renderers.
            shop.commit(lease)
        shop.say_done(lease)
    assert {one.key for one in shop.store.list(shop.layout(job).root)} > every
    assert shop.finish() == 2
    assert {one.key for one in shop.store.list(shop.layout(job).root)} == every
    assert files(shop, job) == before
    assert shop.record(job.id).outcome == "done"


def test_a_drop_that_is_sent_again_tells_the_queue_what_it_missed(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = done_job(shop, {1, 8})

    def away(*_: Any) -> bool:
        raise Unreachable("Redis is away")

    with monkeypatch.context() as patch:
        patch.setattr(shop.queue, "amend", away)
        with pytest.raises(Unreachable):
            drop(shop, job, "image < 3")
    assert not drop(shop, job, "image < 3").created
    record = shop.record(job.id)
    assert (record.round, record.done_images, record.failed_images) == (1, 6, 1)


def test_rows_are_taken_out_of_shards_index_and_counts(shop: Workshop) -> None:
    job = done_job(shop, {1, 8})
    layout, before = shop.layout(job), files(shop, job)
    rows = {row["key"]: row for row in shop.rows(job)}

    seen = look(shop.store, PREFIX, TENANT, job.id, "topic = 1 or status = 'failed'")
    assert (seen.id, seen.images, seen.dropped, seen.shards) == ("", 10, 4, 2)
    assert [one["image"] for one in seen.examples] == [1, 2, 3, 8]
    assert seen.examples[1] == {
        **{"key": "000000002", "image": 2, "status": "ok", "prompt": "prompt 1", "topic": 1}
    }
    assert files(shop, job) == before
    done = drop(shop, job, "topic = 1 or image = 8")

    assert (done.id, done.created, done.dropped, done.shards) == (f"{job.id}-r1", True, 3, 2)
    index = read_index(shop.store, layout)
    assert [one.name for one in index.shards] == [
        *("train/00000-r0001.tar", "train/00001.tar", "train/00002-r0001.tar")
    ]
    assert (index.complete, index.images) == (True, 10)
    assert (index.ok, index.failed, index.dropped) == (6, 1, 3)
    found = read_dataset(shop.store, layout)
    assert found.wrong == []
    assert (sorted(found.pictures), sorted(found.failed)) == ([0, 4, 5, 6, 7, 9], [1])
    kept = {row["key"]: row for row in shop.rows(job)}
    assert kept == {key: rows[key] for key in kept}
    after = files(shop, job)
    assert {name: after[name] for name in after if "00001" in name} == {
        name: before[name] for name in before if "00001" in name
    }
    assert [row["image"] for row in shop.rows(job, "quarantine")] == [1]
    card = shop.store.get(layout.card).decode()
    assert "3 images were taken out since" in card
    record, told = shop.record(job.id), outcome_of(shop.store, layout)
    assert (record.outcome, record.done_images, told.done, told.failed) == ("done", 6, 6, 1)
    items = item_page(shop.store, layout, job, first=0, limit=10).items
    assert [one.image for one in items if one.status == "dropped"] == [2, 3, 8]
    assert read_original(shop.store, layout, job, "000000000").row["image"] == 0
    assert Pictures(shop.store).read(layout, job, 9).sha256 == items[9].sha256
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []


def test_what_was_dropped_is_put_back(shop: Workshop) -> None:
    job = done_job(shop, {1}, output="objects")
    before = files(shop, job)

    drop(shop, job, "image in (0, 4)", "one")
    assert "images/000000000.png" not in files(shop, job)
    first = files(shop, job)
    drop(shop, job, "image = 5", "two")
    assert undo(shop, job).dropped == 1
    assert files(shop, job) == first
    with pytest.raises(Conflict, match="no drop to undo"):
        undo(shop, job)
    assert drop(shop, job, "image = 5", "three").id == f"{job.id}-r4"
    assert [one.name for one in read_index(shop.store, shop.layout(job)).shards][1] == (
        "train/00001-r0004.tar"
    )

    other = done_job(shop, {1}, output="objects")
    whole = files(shop, other)
    drop(shop, other, "image in (0, 4)")
    undo(shop, other)
    assert files(shop, other) == whole
    assert shop.record(other.id).done_images == 9
    drop(shop, other, "image = 0", "again")
    sweep(shop.store, PREFIX, 2 * NOW + OLD_MS)
    with pytest.raises(Conflict, match="has been swept"):
        undo(shop, other)
    assert sorted(before) == sorted(whole)


def test_what_is_put_aside_goes_as_a_whole(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop of many shards takes hours: a day after its first file the last one is younger."""
    job = done_job(shop, set())
    whole, listed = files(shop, job), shop.store.list
    drop(shop, job, "image in (0, 5)")
    folder = shop.layout(job).replaced(1)

    def aged(prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        for one in listed(prefix, after=after):
            old = one.key.startswith(f"{folder}00000")
            yield replace(one, modified_ms=NOW - 2 * OLD_MS) if old else one

    with monkeypatch.context() as patch:
        patch.setattr(shop.store, "list", aged)
        sweep(shop.store, PREFIX, NOW)
    assert undo(shop, job).dropped == 2
    assert files(shop, job) == whole

    drop(shop, job, "image in (0, 5)", "again")
    # A sweep that died.
    shop.store.delete([f"{shop.layout(job).replaced(3)}00000.tar"])
    with pytest.raises(Conflict, match="has been swept"):
        undo(shop, job)
    assert drop(shop, job, "image = 1", "further").dropped == 1


def test_other_forms_follow(shop: Workshop) -> None:
    job = done_job(shop, {1}, output="imagefolder")
    root, folders = shop.layout(job).root, shop.layout(job).form_folders

    def forms() -> dict[str, str]:
        found = [one for folder in folders for one in shop.store.list(folder)]
        return {one.key.removeprefix(root): one.etag for one in found}

    before = forms()
    drop(shop, job, "image = 5")

    after = forms()
    assert any("00001-r0001" in name for name in after)
    assert not [name for name in after if "train/00001/" in name or "train-00001." in name]
    assert not [name for name in after if name.endswith("000010001.png")]
    undo(shop, job)
    assert forms() == before


def test_asked_again_it_is_the_same_drop(shop: Workshop) -> None:
    job = done_job(shop, set())
    first = drop(shop, job, "topic = 1", "one")

    again = drop(shop, job, "topic = 1", "one")
    assert (again.id, again.created, again.dropped) == (first.id, False, 2)
    with pytest.raises(Conflict, match="whose condition is another"):
        drop(shop, job, "topic = 2", "one")
    with pytest.raises(Conflict, match="no image matches"):
        drop(shop, job, "topic = 1", "two")
    with pytest.raises(Conflict, match="nothing would be left"):
        drop(shop, job, "seed >= 0", "two")
    with pytest.raises(InvalidInput, match="no column 'colour'"):
        drop(shop, job, "colour = 'red'", "two")
    running = shop.submit(ROWS)
    with pytest.raises(Conflict, match="has not ended"):
        drop(shop, running, "topic = 1")
    with pytest.raises(Conflict, match="has not ended"):
        look(shop.store, PREFIX, TENANT, running.id, "topic = 1")


def test_sent_again_while_it_is_done_it_is_the_same_drop(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose connection was cut sends it again, and the first call goes on."""
    job = done_job(shop, set())
    rewrite, answers = jobs.drop._rewrite, list[Dropped]()

    def slow(*words: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(jobs.drop, "_rewrite", rewrite)
            answers.append(drop(shop, job, "topic = 1"))
        rewrite(*words)

    monkeypatch.setattr(jobs.drop, "_rewrite", slow)
    answers.append(drop(shop, job, "topic = 1"))

    assert [(one.id, one.dropped, one.shards) for one in answers] == [(f"{job.id}-r1", 2, 1)] * 2
    found = read_dataset(shop.store, shop.layout(job))
    assert (found.wrong, len(found.pictures)) == ([], 8)


class Died(BaseException):
    """The process ended here."""


@pytest.mark.parametrize(
    "step",
    ["rewriting.status_dict", "drop.finish_job", "finish._write_about", "drop.write_outcome"],
)
def test_a_drop_that_was_cut_short_goes_on(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    job = done_job(shop, {1})

    def died(*_words: object, **_more: object) -> Any:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(f"jobs.{step}", died)
        with pytest.raises(Died):
            drop(shop, job, "topic in (0, 2)", "one")
    for wish in (lambda: retry(shop, job, "r"), lambda: drop(shop, job, "topic = 3", "two")):
        with pytest.raises(Conflict, match="a drop of the job runs"):
            wish()
    assert list(recover_jobs(shop.store, shop.queue, PREFIX)) == []

    # Another key: whoever lost it asks for the same once more.
    done = drop(shop, job, "topic in (0, 2)", "one" if "finish" in step else "three")

    assert (done.created, done.dropped) == (False, 4)
    found = read_dataset(shop.store, shop.layout(job))
    assert (found.wrong, sorted(found.pictures), found.failed) == ([], [2, 3, 6, 7, 8, 9], {})


@dataclass
class Model:
    """What a dataset must hold, image by image."""

    job: Job
    chance: random.Random
    rows: int = len(ROWS)
    repeats: int = 2
    #: (row, repeat) of each image, in order.
    spots: list[tuple[int, int]] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    undone: set[int] | None = None
    told: list[str] = field(default_factory=list)
    #: Of a job that drops near-duplicates: how each image's last picture looks.
    looks: dict[int, int] | None = None
    twins: int = 0

    @property
    def made(self) -> set[int]:
        return set(range(len(self.spots))) - self.failed - self.dropped

    def add(self, shop: Workshop, rows: range, repeats: range) -> None:
        """Images of these rows and repeats come next, some of them broken."""
        first = len(self.spots)
        self.spots += [(row, repeat) for row in rows for repeat in repeats]
        new = range(first, len(self.spots))
        shop.broken = {i for i in new if self.chance.random() < 0.2}
        self.failed |= shop.broken
        self.look(shop, new)

    def look(self, shop: Workshop, images: Iterable[int]) -> None:
        """Pictures are made of these images; which are to be turned away for how they look."""
        if self.looks is None:
            return
        there = {self.looks[image] for image in self.made - {*images}}
        for image in sorted({*images} - shop.broken):
            known = [*self.looks.values()]
            again = known and self.chance.random() < 0.3
            look = self.chance.choice(known) if again else self.chance.getrandbits(64)
            self.looks[image] = look
            if look in there:
                self.failed.add(image)
                self.twins += 1
            there.add(look)
        shop.looks = self.looks

    def step(self, shop: Workshop, number: int) -> None:
        verb = self.chance.choice(["retry", "repeats", "rows", "drop", "drop", "undo"])
        self.told.append(verb)
        undone, self.undone = self.undone, None
        if verb == "retry" and self.failed:
            tried = set(self.failed)
            shop.broken = {i for i in sorted(tried) if self.chance.random() < 0.3}
            retry(shop, self.job, f"key-{number}")
            self.failed = set(shop.broken)
            self.look(shop, tried)
        elif verb == "repeats":
            self.add(shop, range(self.rows), range(self.repeats, self.repeats + 1))
            self.repeats += 1
            self._extend(shop, number, {"repeats": 1})
        elif verb == "rows":
            self.add(shop, range(self.rows, self.rows + 2), range(self.repeats))
            self.rows += 2
            more = [Row(prompt=f"more {number} {n}", extra={"topic": n}) for n in range(2)]
            self._extend(shop, number, {"rows": more})
        elif verb == "drop":
            self._drop(shop, number)
        elif undone is not None:
            undo(shop, self.job)
            self._put_back(undone)
        else:
            self.undone = undone

    def _extend(self, shop: Workshop, number: int, wish: dict[str, Any]) -> None:
        key, wanted = f"key-{number}", asked(shop, self.job)
        request = ExtensionRequest(repeats=wish.pop("repeats", 0))
        more = {"request": request, "idempotency_key": key, **wanted, **wish}
        extend_job(shop.store, shop.queue, CATALOG, **more)

    def _drop(self, shop: Workshop, number: int) -> None:
        low = self.chance.randrange(len(self.spots))
        where, gone = self.chance.choice(
            [
                (f"image >= {low} and image < {low + 3}", set(range(low, low + 3))),
                ("status = 'failed'", set(self.failed)),
                (f"row = {low % self.rows} and repeat = 1", {self._image(low % self.rows)}),
            ]
        )
        gone &= set(range(len(self.spots))) - self.dropped
        if gone and self.made - gone:
            done = drop(shop, self.job, where, f"key-{number}")
            assert done.dropped == len(gone)
            self.lost = {image: image in self.failed for image in gone}
            self.failed -= gone
            self.dropped |= gone
            self.undone = gone

    def _image(self, row: int) -> int:
        return self.spots.index((row, 1))

    def _put_back(self, images: set[int]) -> None:
        self.dropped -= images
        self.failed |= {image for image in images if self.lost[image]}


@pytest.mark.parametrize("looks", [False, True], ids=["", "twins"])
@pytest.mark.parametrize("number", range(SEQUENCES))
def test_all_agrees_after_any_sequence_of_repairs(shop: Workshop, number: int, looks: bool) -> None:
    """Index, rows, tar members and digests after retries, extensions, drops and undos."""
    filters = TWINS if looks else ()
    job = shop.submit(ROWS, repeats=2, shard_images=4, seed=number, filters=filters)
    model = Model(job, random.Random(number), looks={} if looks else None)
    layout = shop.layout(job)
    model.add(shop, range(model.rows), range(model.repeats))
    for step in range(6):
        if step:
            model.step(shop, step)
        shop.render(job)
        shop.finish()
        found, index = read_dataset(shop.store, layout), read_index(shop.store, layout)
        assert found.wrong == [], model.told
        assert set(found.pictures) == model.made, model.told
        assert set(found.failed) == model.failed, model.told
        assert set(found.rows.values()) == {1}
        counts = (index.images, index.ok, index.failed, index.dropped)
        sets = (model.spots, model.made, model.failed, model.dropped)
        assert counts == tuple(map(len, sets)), model.told
        rows = [row for row in shop.rows(job) if row["status"] == "ok"]
        spots = {row["image"]: (row["row"], row["repeat"]) for row in rows}
        assert spots == {image: model.spots[image] for image in model.made}
        assert len({row["key"] for row in rows}) == len(rows)
        timing = json.loads(shop.store.get(layout.timing))
        assert (timing["images"], timing["ok"]) == (index.images, index.ok)
        assert shop.record(job.id).done_images == index.ok
        assert index.duplicates == (0 if looks else None)
    assert index.rejects.get("near_duplicate", 0) == model.twins
