"""A job's own output as folders or tables with pictures: made of its tars, whoever writes it."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from datasets import load_dataset

from jobs.commit import adopt_unit, commit_unit
from jobs.control import steer
from jobs.errors import InvalidInput
from jobs.fetch import fetch_dataset
from jobs.job import MAX_OBJECTS, Job
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.made_shards import MAKER, TIMES
from tests.rendered_jobs import PREFIX, TENANT, Workshop

ROWS = [Row(prompt=f"prompt {n}", extra={"label": n % 3}) for n in range(12)]
FORMS = ["imagefolder", "parquet"]


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    return Workshop(ShardQueue(client), store)


def finished(shop: Workshop, form: str, **request: Any) -> Job:
    job = shop.submit(ROWS, output=form, shard_images=5, repeats=2, **request)
    shop.render(job)
    shop.finish()
    return job


def fetched(shop: Workshop, job: Job, out: Path) -> dict[str, list[dict[str, Any]]]:
    """What `datasets` reads of each split of the fetched folder."""
    fetch_dataset(shop.store, shop.layout(job), out)
    found: Any = load_dataset(str(out), cache_dir=str(out.parent / "cache"))
    return {split: list(found[split]) for split in found}


@pytest.mark.parametrize("form", FORMS)
def test_a_fetched_job_loads_with_pictures_and_rows(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    shop.broken = {4, 7}
    job = finished(shop, form, validation=0.4, thumbnails=32)
    splits = fetched(shop, job, tmp_path / "out")
    assert set(splits) == {"train", "validation"}
    made = {row["key"]: row for row in shop.rows(job) if row["status"] == "ok"}
    assert sum(map(len, splits.values())) == len(made) == 22
    for rows in splits.values():
        for row in rows:
            expected = made[row["key"]]
            assert row["image"].size == (expected["width"], expected["height"])
            assert (row["text"], row["label"]) == (expected["prompt"], expected["label"])
            assert (row["seed"], row["image_index"]) == (expected["seed"], expected["image"])
    prompts = [{row["text"] for row in rows} for rows in splits.values()]
    assert not prompts[0] & prompts[1]
    # Tars stay what every job has, and what a retry or a lost queue rests on.
    assert len(list((tmp_path / "out" / "train").glob("*.tar"))) == 5
    small = list((tmp_path / "out" / "thumbnails").rglob("*.jpg"))
    assert len(small) == (22 if form == "imagefolder" else 0)


@pytest.mark.parametrize("form", FORMS)
def test_who_adopts_a_tar_makes_the_same_of_it(shop: Workshop, form: str) -> None:
    class Died(BaseException):
        """The process ended here."""

    def dies(step: str) -> None:
        if step == "tar_put":
            raise Died

    alike = shop.submit(ROWS, output=form, shard_images=5)
    shop.render(alike)
    job = shop.submit(ROWS, output=form, shard_images=5)
    lease = shop.claim(job)[0]
    _, layout, unit, images = shop.unit_of(lease)
    pictures = [shop._picture(job, layout, image) for image in images]
    arbiter = shop.queue
    ids = (job, layout, unit, lease.token, 0)
    with pytest.raises(Died):
        commit_unit(shop.store, arbiter, *ids, pictures, MAKER, TIMES, failpoint=dies)
    assert files(shop, job) == {}
    assert adopt_unit(shop.store, arbiter, job, layout, unit, lease.token, 0) is not None
    first = {name for name in files(shop, alike) if "00000" in name}
    assert files(shop, job).keys() == first


def files(shop: Workshop, job: Job) -> dict[str, bytes]:
    root = shop.layout(job).root
    return {
        found.key.removeprefix(root): shop.store.get(found.key)
        for folder in shop.layout(job).form_folders
        for found in shop.store.list(folder)
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_retry_adds_to_it_and_what_does_not_count_goes(shop: Workshop, form: str) -> None:
    shop.broken = {3}
    job = finished(shop, form)
    before = files(shop, job)
    layout = shop.layout(job)
    stray = (
        f"{layout.root}data/train-00000-0000-0001.parquet"
        if form == "parquet"
        else f"{layout.root}imagefolder/train/00000-0000-0001/metadata.jsonl"
    )
    # As by a late part of a shard that was split: nobody reads its tar.
    shop.store.put(stray, b"x")
    shop.broken = set()
    retry_failed(
        shop.store,
        shop.queue,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=job.id,
        idempotency_key="a",
        now_ms=1,
    )
    shop.render(job)
    shop.finish()
    after = files(shop, job)
    assert before.items() < after.items()
    assert stray.removeprefix(layout.root) not in after
    if form == "parquet":
        assert after.keys() - before.keys() == {"data/train-00005.parquet"}
    else:
        told = after["imagefolder/train/00005/metadata.jsonl"].decode().splitlines()
        assert [json.loads(line)["image_index"] for line in told] == [3]


@pytest.mark.parametrize("form", FORMS)
def test_a_retry_that_is_deleted_takes_its_form_along(shop: Workshop, form: str) -> None:
    shop.broken = {3}
    job = finished(shop, form)
    before = files(shop, job)
    shop.broken = set()
    asked: dict[str, Any] = {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": 1}
    again = retry_failed(shop.store, shop.queue, **asked, idempotency_key="a")
    [lease] = shop.claim(job)
    failed = shop.commit(lease)
    assert files(shop, job).keys() > before.keys()
    steer(shop.queue, shop.store, shop.layout(job), again.id, "cancel", discard=True)
    shop.say_done(lease, failed)
    shop.finish()
    assert files(shop, job) == before


def test_a_table_tells_its_features(shop: Workshop, tmp_path: Path) -> None:
    job = finished(shop, "parquet", thumbnails=16)
    name, data = next(iter(files(shop, job).items()))
    (tmp_path / "t.parquet").write_bytes(data)
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert name == "data/train-00000.parquet"
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert (features["image"], features["thumbnail"]) == ({"_type": "Image"},) * 2


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"validation": 0.1}, "the output webdataset has no validation.*fewstep export"),
        ({"output": "objects", "thumbnails": 32}, "the output objects has no thumbnails"),
        ({"output": "imagefolder", "repeats": MAX_OBJECTS}, "as single objects: at most 10000"),
    ],
)
def test_what_a_form_has_not_is_refused(
    shop: Workshop, request_: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        shop.submit(ROWS, **request_)
    assert list(shop.store.list("")) == []
