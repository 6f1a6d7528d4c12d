"""Finishing makes a dataset that trusted readers read, once all is there, however often."""

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
from datasets import load_dataset
from PIL import Image

from jobs.brought import RECORD
from jobs.catalog import load_catalog
from jobs.commit import commit_unit
from jobs.contact_sheet import contact_sheet
from jobs.dataset_index import cover, gaps
from jobs.errors import FewstepError, NotFound
from jobs.fetch import fetch_dataset
from jobs.finish import Finished, facts_of, finish_job
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import FileFacts, Manifest, Tally
from jobs.objects import PutReply
from jobs.records import ShardTimes
from jobs.rows import Row
from jobs.store import Store
from jobs.timing import timing_of
from tests.made_shards import MAKER, TIMES, made_job, made_layout, made_picture, unit_of

pytest_plugins = ["tests.s3_servers"]

JOB: Job = made_job(10, columns={"topic": "string", "weight": "float"})
LAYOUT: JobLayout = made_layout(JOB)
#: Shard 0 has no column values at all in its first rows, and shard 2 is short.
FAILED = (5,)


class AlwaysWins:
    """An arbiter for tests in which nobody contends."""

    def win(self, job_id: str, unit: str, token: str, /) -> str:
        return token


def put_unit(store: Store, name: str, job: Job = JOB) -> None:
    unit, layout = unit_of(job, name), made_layout(job)
    pictures = [
        made_picture(job, index, failed=index in FAILED, row=row_of(index))
        for index in range(unit.first, unit.stop)
    ]
    commit_unit(store, AlwaysWins(), job, layout, unit, "7", 0, pictures, MAKER, TIMES)


def row_of(index: int) -> Row:
    extra = {"topic": "late", "weight": 2} if index > 6 else {"topic": None}
    return Row(prompt=f"prompt «{index}»", extra=extra)


def finish(store: Store) -> Finished:
    return finish_job(store, LAYOUT, JOB, facts_of(JOB, load_catalog()))


@pytest.fixture
def rendered(store: Store) -> Store:
    """A store with every shard of the job committed."""
    store.put(LAYOUT.job, JOB.model_dump_json().encode())
    for shard in range(JOB.shards):
        put_unit(store, str(shard))
    return store


@pytest.fixture
def fetched(rendered: Store, tmp_path: Path) -> Path:
    """The finished dataset in a folder."""
    finish(rendered)
    fetch_dataset(rendered, LAYOUT, tmp_path / "out")
    return tmp_path / "out"


def objects(store: Store) -> dict[str, bytes]:
    return {found.key: store.get(found.key) for found in store.list(LAYOUT.root)}


def test_a_job_with_a_gap_is_not_finished(store: Store) -> None:
    put_unit(store, "0")
    put_unit(store, "2")
    before = objects(store)

    result = finish(store)

    assert not result.complete
    assert result.missing == ((4, 8),)
    assert objects(store) == before


def test_finishing_writes_the_datasets_files_and_says_so_last(
    rendered: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put = rendered.put

    def noted(key: str, data: bytes, **options: Any) -> PutReply:
        written.append(key)
        return put(key, data, **options)

    monkeypatch.setattr(rendered, "put", noted)

    result = finish(rendered)

    assert result.complete
    assert (result.images, result.ok, result.failed, result.shards) == (10, 9, 1, 3)
    index = json.loads(rendered.get(LAYOUT.index))
    assert [shard["name"] for shard in index["shards"]] == [
        "train/00000.tar",
        "train/00001.tar",
        "train/00002.tar",
    ]
    for shard in index["shards"]:
        for file in (shard, shard["parquet"]):
            data = rendered.get(LAYOUT.root + file["name"])
            assert hashlib.sha256(data).hexdigest() == file["sha256"]
            assert len(data) == file["bytes"]
    digest = hashlib.sha256(rendered.get(LAYOUT.index)).hexdigest()
    assert digest in rendered.get(LAYOUT.success).decode()
    assert written[-1] == LAYOUT.success
    assert len(written) == len(set(written)) == 8


def test_a_second_finisher_changes_nothing(rendered: Store) -> None:
    finish(rendered)
    before = objects(rendered)

    assert finish(rendered).complete

    assert objects(rendered) == before


def test_a_late_part_of_a_split_shard_is_removed(rendered: Store) -> None:
    """A claim believed dead committed the whole shard after its parts were rendered."""
    put_unit(rendered, "1:4-6")
    put_unit(rendered, "1:6-8")

    assert finish(rendered).complete

    names = {found.key.removeprefix(LAYOUT.shards) for found in rendered.list(LAYOUT.shards)}
    assert names == {
        f"0000{n}{end}" for n in range(3) for end in (".tar", ".parquet", "_stats.json")
    }


def test_the_parts_of_a_split_shard_make_a_dataset(store: Store) -> None:
    for name in ("0", "1:4-6", "1:6-8", "2"):
        put_unit(store, name)

    result = finish(store)

    assert (result.complete, result.shards, result.images) == (True, 4, 10)
    assert store.head(f"{LAYOUT.shards}00001-0000-0001.tar") is not None


def test_timing_adds_up_the_stages(rendered: Store) -> None:
    finish(rendered)

    timing = json.loads(rendered.get(LAYOUT.timing))

    denoise = [10 + index for index in range(10) if index not in FAILED]
    stage = timing["stages"]["denoising"]
    assert (stage["count"], stage["sum_ms"]) == (9, sum(denoise))
    assert stage["p50_ms"] == pytest.approx(sorted(denoise)[4], rel=0.01)
    assert stage["p95_ms"] == pytest.approx(max(denoise), rel=0.01)
    assert timing["stages"]["upload"]["count"] == 9
    assert timing["stages"]["queue_wait"]["count"] == 3
    assert timing["stages"]["model_load"]["sum_ms"] == 3 * TIMES.load_ms
    assert timing["stages"]["load_base"]["sum_ms"] == 3 * 100
    assert timing["stages"]["load_fuse"]["sum_ms"] == 0
    assert timing["unet_calls_per_step"] == 1
    assert timing["unet_calls"] == 9 * JOB.recipe.steps
    assert timing["device_seconds"] == pytest.approx(3 * TIMES.device_ms / 1000)
    assert timing["renderers"] == {MAKER.worker: 10}
    assert timing["submitted"] == "2023-11-14T22:13:20.000Z"
    assert timing["waited_s"] == 1.0


def test_images_per_second_are_pictures_over_the_wall_clock() -> None:
    job = made_job(8)
    times = [
        ShardTimes(started_ms=1_000, finished_ms=3_000),
        ShardTimes(started_ms=2_000, finished_ms=5_000),
    ]
    manifests = [made_manifest(job, n, times=one) for n, one in enumerate(times)]

    timing = timing_of(job, manifests)

    assert (timing.wall_s, timing.images_per_second) == (4.0, 2.0)


def test_quantiles_are_within_a_hundredth() -> None:
    values = [0.0, 0.5, 1.0, 3.3, 17.0, 250.0, 9_999.0]
    tally = Tally.total([Tally.of(values[:3]), Tally.of(values[3:])])

    assert tally.count == len(values)
    assert tally.quantile(0.01) == 0.0
    assert tally.quantile(0.5) == pytest.approx(3.3, rel=0.01)
    assert tally.quantile(1.0) == pytest.approx(9_999.0, rel=0.01)
    assert Tally().quantile(0.5) is None
    assert Tally.model_validate_json(tally.model_dump_json()) == tally


def test_cover_prefers_whole_shards_and_gaps_are_named() -> None:
    job = made_job(12)
    whole, part, last = (made_manifest(job, name) for name in ("1", "1:4-6", "2"))

    assert cover([part, last, whole]) == [whole, last]
    assert gaps([whole], job.images) == [(0, 4), (8, 12)]


def test_parts_of_two_splits_are_chosen_so_that_nothing_is_missing() -> None:
    """A late part of a split that the queue has forgotten must not hide those of the other."""
    job = made_job(12, shard_images=12)
    late, *parts = (made_manifest(job, f"0:{span}") for span in ("0-5", "0-4", "4-7", "7-12"))
    assert cover([late, *parts]) == parts
    assert gaps(cover([late, *parts]), job.images) == []
    assert cover([late, parts[2]]) == [late, parts[2]]
    assert cover([]) == []


def test_the_contact_sheet_shows_the_pictures(rendered: Store) -> None:
    finish(rendered)

    with Image.open(BytesIO(rendered.get(LAYOUT.contact_sheet))) as sheet:
        assert sheet.format == "PNG"
        # Nine pictures: a row of eight and a second row.
        assert sheet.size == (8 * 132 + 4, 2 * 132 + 4)
        assert sheet.getpixel((68, 68)) == (0, 90, 0)
        assert sheet.getpixel((68, 200)) == (9, 90, 0)


def test_a_sheet_of_nothing_is_an_empty_page() -> None:
    with Image.open(BytesIO(contact_sheet([]))) as sheet:
        assert sheet.size == (136, 136)


def test_fetched_files_are_the_stores_and_lie_at_the_root(rendered: Store, tmp_path: Path) -> None:
    finish(rendered)
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"

    fetched = fetch_dataset(rendered, LAYOUT, out, lambda there, total: seen.append((there, total)))

    found = {
        f"{LAYOUT.root}{path.relative_to(out)}": path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != RECORD
    }
    assert found == objects(rendered)
    assert (fetched.files, fetched.kept) == (len(found), 0)
    assert seen[-1] == (fetched.bytes, fetched.bytes)


def test_fetching_again_keeps_what_is_right_and_mends_the_rest(
    rendered: Store, tmp_path: Path
) -> None:
    finish(rendered)
    fetch_dataset(rendered, LAYOUT, tmp_path)
    (tmp_path / "train/00000.tar").write_bytes(b"cut off")
    (tmp_path / "train/00001.parquet").unlink()

    again = fetch_dataset(rendered, LAYOUT, tmp_path)

    assert again.kept == 5
    assert (tmp_path / "train/00000.tar").read_bytes() == rendered.get(f"{LAYOUT.shards}00000.tar")
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_changed_in_the_store_is_refused(rendered: Store, tmp_path: Path) -> None:
    finish(rendered)
    rendered.put(f"{LAYOUT.shards}00001.tar", b"other bytes")

    with pytest.raises(FewstepError, match=r"00001\.tar.*not what the index says"):
        fetch_dataset(rendered, LAYOUT, tmp_path)

    assert not (tmp_path / "_SUCCESS").exists()


def test_an_unfinished_dataset_cannot_be_fetched(rendered: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not finished"):
        fetch_dataset(rendered, LAYOUT, tmp_path)


@pytest.mark.filterwarnings(
    # datasets leaves its files to the garbage collector.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_load_dataset_reads_the_folder(fetched: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    tables = str(fetched / "train/*.parquet")

    pictures = load_dataset(str(fetched), split="train", cache_dir=cache)
    rows = load_dataset("parquet", data_files=tables, split="train", cache_dir=cache)

    assert len(pictures) == 9
    assert [one["json"]["image"] for one in pictures] == [n for n in range(10) if n not in FAILED]
    # The column has no value in the first samples, from which a loader would guess its type.
    assert [one["json"]["topic"] for one in pictures][-3:] == ["late"] * 3
    assert pictures[0]["json"]["topic"] is None
    assert pictures[0]["txt"] == "prompt «0»"
    assert pictures[0]["png"].size == (64, 64)
    assert len(rows) == 10
    assert rows["status"].count("failed") == 1


def test_pyarrow_reads_all_rows(fetched: Path) -> None:
    files = [str(path) for path in sorted((fetched / "train").glob("*.parquet"))]

    table = pyarrow.dataset.dataset(files).to_table()

    assert table["image"].to_pylist() == list(range(10))
    assert table["weight"].to_pylist() == [None] * 7 + [2.0] * 3


def test_the_card_tells_recipe_and_licences(fetched: Path) -> None:
    card = (fetched / "README.md").read_text()

    assert card.startswith("---\npretty_name: ")
    assert "| lcm-tiny | apache-2.0, commercial use allowed |" in card
    assert "lcm-tiny, weight 1" in card
    assert "1 images could not be made" in card
    assert 'path: "train/*.tar"' in card


def made_manifest(job: Job, name: int | str, times: ShardTimes = TIMES) -> Manifest:
    unit = unit_of(job, str(name))
    facts = FileFacts(name="00000.tar", bytes=1, sha256="0" * 64)
    return Manifest(
        job=job.id,
        unit=unit.name,
        shard=unit.shard,
        first=unit.first,
        stop=unit.stop,
        count=unit.images,
        ok=unit.images,
        failed=0,
        tar=facts,
        parquet=facts,
        token="1",
        worker="w",
        attempt=0,
        adopted=False,
        status_dict={"ok": unit.images},
        tokens_lost=0,
        unet_calls=0,
        times=times,
        stages={},
    )
