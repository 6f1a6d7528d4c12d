"""The fault suite's own eye: a dataset that is not whole, or a thing left behind, is seen."""

import hashlib
from collections.abc import Iterator

import pytest

from jobs.dataset_index import DatasetIndex
from jobs.drop import drop_rows
from jobs.finish import facts_of
from jobs.undo_drop import undo_drop
from tests.chaos.bench import Bench, up
from tests.chaos.examine import Undisturbed, Verdict, examine, read_dataset
from tests.chaos.one_site import Site
from tests.chaos.seats import OLD
from tests.chaos.world import TENANT, Whole
from tests.s3_servers import WEAK

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def site(struck: Bench) -> Iterator[Site]:
    """A job that ran undisturbed."""
    with struck.site(OLD, WEAK) as site:
        up(site)
        site.wait_for_end()
        assert not site.stop()
        yield site


@pytest.fixture(scope="module")
def pictures(site: Site) -> Undisturbed:
    return read_dataset(site.store, site.layout()).pictures


def look(site: Site, pictures: Undisturbed) -> Verdict:
    return examine(site, pictures, [site.the_job])


def rewritten(site: Site, index: DatasetIndex) -> None:
    """The index as if it had been written so."""
    data = index.model_dump_json(indent=1).encode()
    site.store.put(site.layout().index, data)
    said = f"index.json sha256 {hashlib.sha256(data).hexdigest()}\n".encode()
    site.store.put(site.layout().success, said)


def test_an_undisturbed_run_is_clean(site: Site, pictures: Undisturbed) -> None:
    assert len(pictures) == site.the_job.images
    assert look(site, pictures).clean


def test_another_picture_is_seen(site: Site, pictures: Undisturbed) -> None:
    assert look(site, {**pictures, 5: "0" * 64}).wrong == ["image 5: another picture"]


def test_lost_and_doubled_images_are_seen(site: Site, pictures: Undisturbed) -> None:
    whole = DatasetIndex.model_validate_json(site.store.get(site.layout().index))
    try:
        rewritten(site, whole.model_copy(update={"shards": whole.shards[:-1]}))
        assert look(site, pictures).lost == list(range(40, 48))
        rewritten(site, whole.model_copy(update={"shards": (*whole.shards, whole.shards[0])}))
        assert look(site, pictures).doubled == list(range(8))
    finally:
        rewritten(site, whole)


def test_a_tar_with_other_bytes_is_seen(site: Site, pictures: Undisturbed) -> None:
    key = f"{site.layout().shards}00001.tar"
    whole = site.store.get(key)
    try:
        site.store.put(key, site.store.get(f"{site.layout().shards}00002.tar"))
        wrong = look(site, pictures).wrong
    finally:
        site.store.put(key, whole)
    assert "00001.tar: not the bytes that the manifest names" in wrong
    assert "00001.tar: members and rows differ" in wrong


def test_what_is_left_behind_is_seen(site: Site, pictures: Undisturbed) -> None:
    stray, staged = f"{site.layout().shards}00099.tar", f"{site.layout().scratch}staged/x"
    temporary = site.tmp("a") / "fewstep-left"
    job = site.submit(images=4)
    lease = site.queue.claim("w", "n", job.recipe.engine_key, 1, 60_000)[0]
    for key in (stray, staged):
        site.store.put(key, b"x")
    temporary.write_bytes(b"x")
    try:
        verdict = look(site, pictures)
    finally:
        site.store.delete([stray, staged])
        temporary.unlink()
        site.queue.fail(lease.job_id, lease.unit, lease.token, "release")
    assert verdict.wrong == ["train/00099.tar is in no index"]
    assert [what.split()[0] for what in verdict.left_over] == ["lease", "staged", "file"]


def test_what_a_drop_left_or_took_too_much_is_seen(site: Site, pictures: Undisturbed) -> None:
    job, facts = site.the_job, facts_of(site.the_job, site.catalog)
    ids = {"prefix": site.direct.s3_prefix, "tenant": TENANT, "job_id": job.id, "now_ms": 1}
    where = "image >= 3 and image < 5"
    drop_rows(site.store, site.queue, facts, **ids, where=where, idempotency_key="a")  # type: ignore[arg-type]
    try:
        assert look(site, pictures).lost == [3, 4]
        wanted = {image: digest for image, digest in pictures.items() if image not in (3, 4)}
        site.wholes[job.id] = Whole(wanted, failed=0)
        assert look(site, pictures).clean
        site.wholes[job.id] = Whole({**wanted, 9: "0" * 64}, failed=0)
        assert look(site, pictures).wrong == ["image 9: another picture"]
        del wanted[5]
        site.wholes[job.id] = Whole(wanted, failed=0)
        assert look(site, pictures).wrong == ["image 5: it was dropped, or never asked for"]
    finally:
        site.wholes.clear()
        undo_drop(site.store, site.queue, facts, **ids)  # type: ignore[arg-type]
    assert look(site, pictures).clean
