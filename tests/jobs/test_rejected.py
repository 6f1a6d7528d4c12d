"""Pictures that filters turned away: committed with their unit, whoever dies on the way."""

import tarfile
from io import BytesIO

import pytest

from jobs.commit import adopt_unit, commit_unit
from jobs.filters import JobFilter
from jobs.records import Picture
from jobs.store import Store
from tests.jobs.test_commit import Died, OneLease
from tests.made_shards import MAKER, TIMES, made_job, made_layout, made_picture, unit_of

JOB = made_job(rows=4, shard_images=4).model_copy(
    update={"filters": (JobFilter(name="a", kind="judge", policy="drop", at_least=1.0),)}
)
LAYOUT, UNIT = made_layout(JOB), unit_of(JOB, "0")


def turned_away(index: int) -> Picture:
    made = made_picture(JOB, index)
    news = {"status": "failed", "error": "rejected:a", "error_kind": "rejected"}
    filtered = {"turned_away": "a", "score_a": 0.4, "seed_try": 0, "marks": "", "filter_ms": 1.0}
    record = made.record.model_copy(update=news | {"filtered": filtered})
    return made.model_copy(update={"record": record})


PICTURES = [
    made_picture(JOB, 0),
    turned_away(1),
    made_picture(JOB, 2, failed=True),
    turned_away(3),
]


@pytest.mark.parametrize("step", ["tar_put", "table_put", "rejected_put", "manifest_put", ""])
def test_they_lie_in_the_quarantine_whenever_the_claim_died(store: Store, step: str) -> None:
    arbiter = OneLease("first")

    def die(now: str) -> None:
        if now == step:
            raise Died

    def commit() -> None:
        commit_unit(
            *(store, arbiter, JOB, LAYOUT, UNIT, "first", 0, PICTURES, MAKER, TIMES), failpoint=die
        )

    if step:
        with pytest.raises(Died):
            commit()
    else:
        commit()
    done = adopt_unit(store, arbiter, JOB, LAYOUT, UNIT, "second", 1)
    assert done is not None
    manifest, key = done.manifest, f"{LAYOUT.root}quarantine/00000.tar"
    assert (manifest.ok, manifest.failed, manifest.rejects) == (1, 3, {"a": 2})
    assert manifest.rejected is not None
    assert (manifest.rejected.name, manifest.rejected.bytes) == ("00000.tar", len(store.get(key)))
    with tarfile.open(fileobj=BytesIO(store.get(key))) as tar:
        assert [name for name in tar.getnames() if name.endswith(".png")] == [
            f"{PICTURES[n].record.key}.png" for n in (1, 3)
        ]
        body = tar.extractfile(f"{PICTURES[1].record.key}.png")
        assert body is not None
        assert body.read() == PICTURES[1].data
    store.delete_prefix(f"{LAYOUT.scratch}staged/")
