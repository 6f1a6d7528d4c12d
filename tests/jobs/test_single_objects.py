"""Pictures as objects of their own follow from their shard's tar, whoever writes them."""

from pathlib import Path

import pytest

from jobs.catalog import load_catalog
from jobs.commit import adopt_unit, commit_unit
from jobs.discard import discard_job
from jobs.errors import InvalidInput
from jobs.fetch import fetch_dataset
from jobs.finish import facts_of, finish_job
from jobs.job import MAX_OBJECTS, JobRequest
from jobs.rows import Row
from jobs.store import Store
from jobs.submit import dry_run_job
from tests.made_shards import MAKER, TIMES, made_job, made_layout, made_pictures, unit_of

pytest_plugins = ["tests.s3_servers"]

JOB = made_job(rows=4).model_copy(update={"output": "objects"})
LAYOUT = made_layout(JOB)
UNIT = unit_of(JOB, "0")
PICTURES = made_pictures(JOB, UNIT, failed=(2,))
WANTED = {
    LAYOUT.pictures + picture.record.file_name: picture.data for picture in PICTURES if picture.data
}


class Died(BaseException):
    """The process ended here."""


class Winner:
    """The arbiter of a unit that one claim alone ever held."""

    def win(self, job_id: str, unit: str, token: str, /) -> str:
        return "1"


def commit(store: Store, die_at: str = "") -> None:
    def failpoint(step: str) -> None:
        if step == die_at:
            raise Died(step)

    commit_unit(
        store, Winner(), JOB, LAYOUT, UNIT, "1", 0, PICTURES, MAKER, TIMES, failpoint=failpoint
    )


def singles(store: Store) -> dict[str, bytes]:
    return {found.key: store.get(found.key) for found in store.list(LAYOUT.pictures)}


def test_each_picture_lies_beside_its_shard(store: Store, tmp_path: Path) -> None:
    commit(store)
    assert singles(store) == WANTED
    store.put(LAYOUT.job, JOB.model_dump_json().encode())
    assert finish_job(store, LAYOUT, JOB, facts_of(JOB, load_catalog())).complete
    fetch_dataset(store, LAYOUT, tmp_path)
    there = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    assert there == {key.rpartition("/")[2]: data for key, data in WANTED.items()}
    discard_job(store, LAYOUT)
    assert not singles(store)


@pytest.mark.parametrize("step", ["tar_put", "objects_put"])
def test_who_adopts_the_tar_writes_them(store: Store, step: str) -> None:
    with pytest.raises(Died):
        commit(store, die_at=step)
    assert bool(singles(store)) == (step == "objects_put")
    assert adopt_unit(store, Winner(), JOB, LAYOUT, UNIT, "2", 1) is not None
    assert singles(store) == WANTED


def test_a_large_job_is_refused() -> None:
    rows = (Row(prompt=f"number {number}") for number in range(2))
    with pytest.raises(InvalidInput, match="single objects") as refused:
        dry_run_job(
            load_catalog(),
            tenant="default",
            request=JobRequest(output="objects", repeats=MAX_OBJECTS // 2 + 1),
            rows=rows,
            idempotency_key="key",
        )
    assert refused.value.where == "output"
