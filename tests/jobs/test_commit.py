"""The commit survives a death between any two steps, on stores with and without conditions."""

import hashlib
from io import BytesIO

import pyarrow.parquet as pq
import pytest

from jobs.commit import Committed, adopt_unit, commit_unit
from jobs.errors import FewstepError, LeaseLost
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.records import Picture
from jobs.shard_tar import read_tar
from jobs.store import Store
from tests.made_shards import MAKER, TIMES, made_job, made_layout, made_pictures, unit_of

pytest_plugins = ["tests.s3_servers"]

JOB: Job = made_job()
LAYOUT: JobLayout = made_layout(JOB)
UNIT = unit_of(JOB, "0")
FAILED = (2,)
PICTURES = made_pictures(JOB, UNIT, failed=FAILED)
OTHERS = made_pictures(JOB, UNIT, failed=FAILED, shade=200)


class Died(BaseException):
    """The process ended here."""


class OneLease:
    """An arbiter like the queue: the first who holds the lease wins, for ever."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.winner = ""

    def win(self, job_id: str, unit: str, token: str, /) -> str:
        assert (job_id, unit) == (JOB.id, UNIT.name)
        if not self.winner and token == self.holder:
            self.winner = token
        return self.winner


def commit(
    store: Store, arbiter: OneLease, token: str, pictures: list[Picture], die_at: str = ""
) -> Committed:
    def failpoint(step: str) -> None:
        if step == die_at:
            raise Died(step)

    return commit_unit(
        store, arbiter, JOB, LAYOUT, UNIT, token, 0, pictures, MAKER, TIMES, failpoint=failpoint
    )


def adopt(store: Store, arbiter: OneLease, token: str) -> Committed | None:
    return adopt_unit(store, arbiter, JOB, LAYOUT, UNIT, token, 1)


def committed_bytes(store: Store) -> dict[str, bytes]:
    return {found.key: store.get(found.key) for found in store.list(LAYOUT.shards)}


def assert_agrees(store: Store, committed: Committed) -> None:
    """Tar, parquet and manifest tell the same, and nothing staged is left."""
    manifest = committed.manifest
    tar, table = store.get(LAYOUT.tar(UNIT)), store.get(LAYOUT.table(UNIT))
    assert hashlib.sha256(tar).hexdigest() == manifest.tar.sha256
    assert hashlib.sha256(table).hexdigest() == manifest.parquet.sha256
    assert (len(tar), len(table)) == (manifest.tar.bytes, manifest.parquet.bytes)
    made = read_tar(tar)
    rows = pq.read_table(BytesIO(table)).to_pylist()
    assert [row["image"] for row in rows] == list(range(UNIT.first, UNIT.stop))
    assert [row["sha256"] for row in rows if row["status"] == "ok"] == [
        row["sha256"] for row in made
    ]
    assert [row["image"] for row in rows if row["status"] == "failed"] == list(FAILED)
    assert (manifest.count, manifest.ok, manifest.failed) == (4, 3, 1)
    assert manifest.status_dict == {"ok": 3, "not a number": 1}
    assert len(committed_bytes(store)) == 3


def test_commit_writes_three_files_that_agree(store: Store) -> None:
    committed = commit(store, OneLease("1"), "1", PICTURES)

    assert_agrees(store, committed)
    assert not committed.manifest.adopted
    assert committed.manifest.token == "1"
    assert committed.manifest.tokens_lost == 2
    assert list(store.list(LAYOUT.scratch)) == []


def test_nothing_to_adopt_before_the_first_commit(store: Store) -> None:
    assert adopt(store, OneLease("1"), "1") is None


@pytest.mark.parametrize("step", ["staged", "won", "tar_put", "table_put", "manifest_put"])
def test_death_after_any_step_then_another_claim(store: Store, step: str) -> None:
    arbiter = OneLease("1")
    strict_skips = store.honours_absent and step in {"staged", "won"}
    try:
        commit(store, arbiter, "1", PICTURES, die_at=step)
    except Died:
        assert not strict_skips
    else:
        assert strict_skips

    arbiter.holder = "2"
    second = adopt(store, arbiter, "2") or commit(store, arbiter, "2", OTHERS)

    assert_agrees(store, second)
    first_counts = step != "staged" or strict_skips
    assert second.manifest.token == ("1" if first_counts else "2")
    assert second.manifest.tar.sha256 == hashlib.sha256(store.get(LAYOUT.tar(UNIT))).hexdigest()


@pytest.mark.parametrize("step", ["won", "tar_put", "table_put"])
def test_an_adopted_unit_says_so_and_loses_no_failed_row(store: Store, step: str) -> None:
    if store.honours_absent and step == "won":
        pytest.skip("a store that honours conditions needs no arbiter")
    arbiter = OneLease("1")
    with pytest.raises(Died):
        commit(store, arbiter, "1", PICTURES, die_at=step)

    adopted = adopt(store, arbiter, "2")

    assert adopted is not None
    assert adopted.manifest.adopted
    assert adopted.manifest.attempt == 1
    assert adopted.manifest.worker == MAKER.worker
    assert adopted.manifest.times.device_ms > 0
    assert_agrees(store, adopted)


def test_a_zombie_cannot_change_committed_bytes(store: Store) -> None:
    arbiter = OneLease("2")
    committed = commit(store, arbiter, "2", PICTURES)
    before = committed_bytes(store)

    with pytest.raises(LeaseLost):
        commit(store, arbiter, "1", OTHERS)

    assert committed_bytes(store) == before
    assert list(store.list(LAYOUT.scratch)) == []
    assert adopt(store, arbiter, "1") == committed


def test_a_zombie_that_won_finishes_onto_the_same_bytes(store: Store) -> None:
    """It stands still after its tar, another claim adopts and finishes, then it goes on."""
    arbiter = OneLease("1")
    seen: list[Committed | None] = []

    def overtaken(step: str) -> None:
        if step == "tar_put":
            seen.append(adopt(store, arbiter, "2"))

    late = commit_unit(
        store, arbiter, JOB, LAYOUT, UNIT, "1", 0, PICTURES, MAKER, TIMES, failpoint=overtaken
    )

    assert seen == [late]
    assert_agrees(store, late)


def test_a_stale_token_wins_nothing_where_the_arbiter_decides(store: Store) -> None:
    if store.honours_absent:
        pytest.skip("this store decides by itself")
    arbiter = OneLease("2")

    with pytest.raises(LeaseLost, match="the lease is over"):
        commit(store, arbiter, "1", PICTURES)

    assert committed_bytes(store) == {}


@pytest.mark.parametrize("other_bytes", [False, True])
def test_committing_again_with_the_same_token_changes_nothing(
    store: Store, other_bytes: bool
) -> None:
    """A renderer whose reply was lost says everything twice."""
    arbiter = OneLease("1")
    first = commit(store, arbiter, "1", PICTURES)
    again: Committed | None

    try:
        again = commit(store, arbiter, "1", OTHERS if other_bytes else PICTURES)
    except LeaseLost:
        again = adopt(store, arbiter, "1")

    assert again == first
    assert_agrees(store, first)


def test_a_unit_whose_images_all_failed_has_an_empty_tar(store: Store) -> None:
    every = list(range(UNIT.first, UNIT.stop))
    pictures = made_pictures(JOB, UNIT, failed=every)
    arbiter = OneLease("1")
    with pytest.raises(Died):
        commit(store, arbiter, "1", pictures, die_at="tar_put")

    adopted = adopt(store, arbiter, "2")

    assert adopted is not None
    assert (adopted.manifest.ok, adopted.manifest.failed) == (0, 4)
    assert read_tar(store.get(LAYOUT.tar(UNIT))) == []
    assert pq.read_table(BytesIO(store.get(LAYOUT.table(UNIT)))).num_rows == 4


def test_a_tar_that_was_damaged_is_not_adopted(store: Store) -> None:
    arbiter = OneLease("1")
    with pytest.raises(Died):
        commit(store, arbiter, "1", PICTURES, die_at="tar_put")
    store.delete_prefix(f"{LAYOUT.scratch}staged/")
    store.put(LAYOUT.tar(UNIT), b"?", metadata={"token": "1", "sha256": "0" * 64})

    with pytest.raises(FewstepError, match="not what was written"):
        adopt(store, arbiter, "2")


def test_a_cut_copy_is_made_again(store: Store) -> None:
    """The server died while it copied the winner's tar to its final name."""
    if store.honours_absent:
        pytest.skip("this store copies nothing")
    arbiter = OneLease("1")
    with pytest.raises(Died):
        commit(store, arbiter, "1", PICTURES, die_at="tar_put")
    store.put(LAYOUT.tar(UNIT), store.get(LAYOUT.tar(UNIT))[:700])

    adopted = adopt(store, arbiter, "2")

    assert adopted is not None
    assert_agrees(store, adopted)


def test_failed_rows_are_found_where_the_store_forgot_whose_tar_it_is(store: Store) -> None:
    """An rclone that restarts keeps the bytes and loses the metadata; Redis may be gone too."""
    with pytest.raises(Died):
        commit(store, OneLease("1"), "1", PICTURES, die_at="tar_put")
    store.put(LAYOUT.tar(UNIT), store.get(LAYOUT.tar(UNIT)))

    adopted = adopt(store, OneLease("2"), "2")

    assert adopted is not None
    assert_agrees(store, adopted)


def test_pictures_must_be_the_units(store: Store) -> None:
    with pytest.raises(ValueError, match="not the images"):
        commit(store, OneLease("1"), "1", PICTURES[1:])


@pytest.mark.parametrize("forgot", [False, True])
def test_who_comes_when_nothing_is_staged_any_more_writes_the_same_bytes(
    store: Store, forgot: bool
) -> None:
    """A claim looked before the manifest was there, and goes on when all of it is: after Redis has
    gone back to an old snapshot, two claims of a unit are at work at once."""
    arbiter = OneLease("7")
    done = commit(store, arbiter, "7", made_pictures(JOB, UNIT))
    before = committed_bytes(store)
    store.delete([LAYOUT.manifest(UNIT)])

    late = adopt(store, OneLease("9") if forgot else arbiter, "9")

    assert late is not None
    assert late.manifest.parquet == done.manifest.parquet.model_copy(
        update={"etag": late.manifest.parquet.etag}
    )
    after = committed_bytes(store)
    del before[LAYOUT.manifest(UNIT)], after[LAYOUT.manifest(UNIT)]
    assert after == before
