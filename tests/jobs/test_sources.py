"""Prompt files of every kind become the same rows; what is wrong in them is named, or left out."""

import io
import json
import resource
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.request import rows_of
from jobs.client import Client
from jobs.client_upload import Stored
from jobs.errors import InvalidInput, NoCapacity, TooLarge
from jobs.fetch import fetch_dataset
from jobs.intake import tally_of
from jobs.job import JobRequest
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import Reading, SourceRows, read_inline, read_rows
from jobs.sources.tables import table_records
from jobs.spool import fetch_rows
from jobs.store import Store
from tests.api_servers import RunningApi, serving
from tests.rendered_jobs import Workshop

ROWS = [
    {"caption": "a red circle", "id": 7, "label": "circle"},
    {"caption": "a blue, wide\nstar", "id": 8, "label": "Stern ✨"},
]
READING = Reading(columns={"prompt": "caption", "seed": "id"})
EXPECTED = [
    Row(prompt=row["caption"], seed=row["id"], extra={"label": row["label"]})  # type: ignore[arg-type]
    for row in ROWS
]


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")


def separated(mark: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        cells = [[str(value) for value in row.values()] for row in ROWS]
        lines = [list(ROWS[0]), *cells]
        text = "".join(mark.join(f'"{cell}"' for cell in line) + "\r\n" for line in lines)
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    return write


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=1)


def saved(path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(path)


def folder(path: Path) -> None:
    (path / "deeper").mkdir(parents=True)
    (path / "0.jsonl").write_text(json.dumps(ROWS[0]), "utf-8")
    (path / "README.md").write_text("no prompts", "utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS[1:]), path / "deeper" / "1.parquet")


KINDS = {
    "rows.jsonl": jsonl,
    "rows.csv": separated(","),
    "rows.tsv": separated("\t"),
    "rows.parquet": parquet,
    "saved": saved,
    "folder": folder,
}


def rows(path: Path, reading: Reading = READING) -> list[Row]:
    found = rows_of(path, reading, None)
    assert isinstance(found, SourceRows)
    return list(found)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_becomes_the_same_rows(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    assert rows(tmp_path / name) == EXPECTED


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_reaches_the_api(api: RunningApi, tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    with Client(api.url) as client:
        found = client.dry_run(JobRequest(source=READING), tmp_path / name)
    assert list(found.preview) == EXPECTED


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
def test_the_api_reads_an_upload_itself(api: RunningApi, tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    job = JobRequest(source=READING).model_dump_json()
    files = {"job": (None, job), "prompts": (name, (tmp_path / name).read_bytes())}
    reply = httpx.post(f"{api.url}/v1/jobs?dry_run=true", files=files, trust_env=False)
    assert reply.status_code == 200, reply.text
    assert [Row.model_validate(row) for row in reply.json()["preview"]] == EXPECTED


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_captions_of_a_webdataset(tmp_path: Path) -> None:
    path = tmp_path / "captions.tar"
    path.write_bytes(
        tar_of(
            {
                "./a/000.jpg": b"pixels",
                "./a/000.txt": b"a red circle\n",
                "./a/000.json": b'{"width": 512, "caption": "unused"}',
                "001.json": b'{"caption": "a star"}',
                "001.cls": b"1",
                "../../etc/002.txt": b"only a name",
            }
        )
    )
    assert rows(path, Reading()) == [
        Row(prompt="a red circle", extra={"source_key": "./a/000"}),
        Row(prompt="a star", extra={"source_key": "001"}),
        Row(prompt="only a name", extra={"source_key": "../../etc/002"}),
    ]
    assert [one.name for one in tmp_path.iterdir()] == ["captions.tar"]


def test_values_of_other_kinds_are_written_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = {
        "prompt": ["a", "b"],
        "day": [date(2026, 1, 2), None],
        "tags": [["x", "y"], []],
        "image": [{"bytes": b"\xff", "path": "p"}, None],
    }
    pq.write_table(pa.table(table), path)
    with pytest.raises(InvalidInput, match=r"rows.parquet: the column 'image' holds bytes.*--drop"):
        rows(path, Reading())
    assert rows(path, Reading(drop=("image",))) == [
        Row(prompt="a", extra={"day": "2026-01-02", "tags": '["x", "y"]'}),
        Row(prompt="b", extra={"tags": "[]"}),
    ]


def test_a_row_may_count_as_several(shop: Workshop) -> None:
    given = [Row(prompt="a", repeats=3, seed=5), Row(prompt="b", repeats=2), Row(prompt="c")]
    job = shop.submit(given, repeats=2)
    found = fetch_rows(shop.store, job, 0, job.rows.count)
    assert [row.prompt for row in found] == ["a", "a", "a", "b", "b", "c"]
    assert found[0].seed == 5
    assert len({row.seed for row in found[:3]}) == 3
    assert {row.repeats for row in found} == {1}
    assert job.images == 12


# ---- what is wrong ----


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    return Workshop(ShardQueue(client), store)


WRONG: dict[str, tuple[bytes, str]] = {
    "a.csv": (b"prompt,seed\na,1\nb\n", r"a.csv, line 3: the row has 1 cells, the header 2"),
    "b.csv": (
        b'prompt\n"a\nb\nc\n',
        r"b.csv, line 2: this is not CSV: a quote",
    ),
    "c.csv": (b"prompt,prompt\na,b\n", r"c.csv, line 1: the header names a column twice"),
    "d.csv": (b"text\na\n", r'd.csv, line 2: the field "prompt" is missing'),
    "e.csv": (b"prompt,seed\na,x\n", r"e.csv, line 2: seed x is not a whole number"),
    "f.csv": (b"prompt\na\nb\xff\n", r"f.csv, line 3: the row is not UTF-8"),
    "g.csv": (b'prompt\n"' + b"a" * 200_000, r"g.csv, line 2: this is not CSV"),
    "h.csv": (b'prompt\n"' + b'a","\n' * 400_000, r"h.csv, line 2: the row is longer"),
    "i.csv": (b"", "there is no prompt"),
    "a.parquet": (b"PAR1" * 9, "a.parquet: the file cannot be read"),
    "a.tar": (b"no tar at all" * 99, "a.tar: the archive cannot be read"),
    "b.tar": (tar_of({"a.txt": b"a"})[:700], "b.tar: the archive cannot be read"),
    "c.tar": (tar_of({"a.txt": b"ab\xff"}), r"c.tar, row 1: 'a' has no caption"),
    "d.tar": (tar_of({"a.jpg": b"x", "b.txt": b"b"}), r"d.tar, row 1: 'a' has no caption"),
    "e.tar": (tar_of({"a.txt": b"x" * 1_000_001}), r"e.tar, row 1: a text of 'a' has more"),
    "f.tar": (tar_of({"a.json": b"[" * 90_000}), r"f.tar, row 1: 'a' has no caption"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_by_file_and_row(tmp_path: Path, name: str) -> None:
    data, says = WRONG[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInput, match=says):
        rows(tmp_path / name, Reading())


def table_of(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def test_a_parquet_file_with_other_columns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table_of(path, text=["a"])
    with pytest.raises(InvalidInput, match='row 1: the field "prompt" is missing'):
        rows(path, Reading())
    with pytest.raises(InvalidInput, match="row 1: the column 'caption' is missing"):
        rows(path)
    table_of(path, prompt=["a", None])
    with pytest.raises(InvalidInput, match='row 2: the field "prompt" is missing'):
        rows(path, Reading())
    table_of(path, prompt=[1, 2])
    with pytest.raises(InvalidInput, match="row 1: prompt is not text"):
        rows(path, Reading())
    table_of(path, prompt=["a"], score=[float("nan")])
    with pytest.raises(InvalidInput, match="row 1: score is not a finite number"):
        rows(path, Reading())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidInput, match="cannot be read"):
        rows(path, Reading())


def test_a_column_that_is_there_already_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table_of(path, prompt=["a"], caption=["b"])
    with pytest.raises(InvalidInput, match=r"a column 'prompt' too.*--drop prompt"):
        rows(path)
    assert rows(path, Reading(columns={"prompt": "caption"}, drop=("prompt",))) == [Row(prompt="b")]


def test_a_dataset_of_splits_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    with pytest.raises(InvalidInput, match="several splits"):
        rows(tmp_path / "splits")
    assert rows(tmp_path / "splits" / "train") == EXPECTED
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no prompt file"):
        rows(tmp_path / "empty")
    state = tmp_path / "splits" / "train" / "state.json"
    state.write_text('{"_data_files": [{"filename": "../../x.arrow"}]}')
    with pytest.raises(InvalidInput, match="lies elsewhere"):
        rows(tmp_path / "splits" / "train")


def test_a_parquet_bomb_ends_its_own_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.parquet"
    text = pa.array(["x" * (200 << 20)], pa.large_string())
    pq.write_table(pa.table({"prompt": text}), path, compression="zstd", write_statistics=False)
    del text
    assert path.stat().st_size < 5_000_000
    monkeypatch.setattr("jobs.sources.tables.MEMORY", 160 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInput, match=r"bomb.parquet: (reading it|the file cannot be read)"):
        rows(path, Reading())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200), st.sampled_from(["text", "jsonl", "csv", "tsv"]))
def test_any_bytes_are_rows_or_are_refused(data: bytes, kind: Any) -> None:
    """Whole, or without the bad rows: never with an error that is not ours."""
    for reading in (Reading(), Reading(bad_rows="quarantine")):
        try:
            found = list(read_rows(io.BytesIO(b"prompt\n" + data), kind, "f", reading))
        except InvalidInput:
            continue
        assert all(row.prompt.strip() for row in found)


def test_a_dry_run_ends_in_time(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.api.routes_submit.DRY_RUN_S", 0.0)
    prompts = [f"p {number}" for number in range(300)]
    with Client(api.url) as client:
        with pytest.raises(TooLarge, match=r"takes longer than 0 s: \d+ rows were read"):
            client.dry_run(JobRequest(), prompts)
        assert client.submit(JobRequest(), prompts).images == 300


def test_a_table_takes_bounded_time_of_a_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.parquet"
    pq.write_table(pa.table({"prompt": [f"p {number}" for number in range(300_000)]}), path)
    monkeypatch.setattr("jobs.sources.tables.CPU_S", 1)
    with pytest.raises(InvalidInput, match=r"long.parquet: .* more than 1 s of a processor"):
        rows(path, Reading())


def test_memory_for_a_table_does_not_depend_on_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet(tmp_path / "rows.parquet")
    asked: list[dict[str, str]] = []
    real = subprocess.Popen

    def noted(*words: Any, env: dict[str, str], **more: Any) -> Any:
        asked.append(env)
        return real(*words, env=env, **more)

    monkeypatch.setattr("jobs.sources.tables.subprocess.Popen", noted)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "64")
    assert rows(tmp_path / "rows.parquet") == EXPECTED
    assert [env["OPENBLAS_NUM_THREADS"] for env in asked] == ["1"]


def test_few_tables_are_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.sources.tables._TURNS", BoundedSemaphore(1))
    monkeypatch.setattr("jobs.sources.tables.TURN_S", 0.01)
    parquet(tmp_path / "a.parquet")
    with (tmp_path / "a.parquet").open("rb") as file:
        first = table_records(file, "parquet", "a.parquet")
        next(first)
        with pytest.raises(NoCapacity, match="other tables are being read"):
            next(table_records(file, "parquet", "b.parquet"))
        first.close()  # type: ignore[attr-defined]
    assert rows(tmp_path / "a.parquet") == EXPECTED


# ---- leaving bad rows out ----


def test_bad_rows_are_left_out_and_told(shop: Workshop, tmp_path: Path) -> None:
    lines = [b'{"prompt": "a"}', b"no json", b"{}", b"x" * 1_000_001, b'{"prompt": "b\xff"}', b""]
    stream = io.BytesIO(b"\n".join([*lines, b'{"prompt": "c", "seed": -1}', b'{"prompt": "d"}']))
    reading = Reading(bad_rows="quarantine")
    job = shop.submit(read_rows(stream, "jsonl", "f.jsonl", reading), source=reading)
    assert (job.rows.count, job.rows.rejected) == (2, 6)
    assert "6 rows cannot be rendered" in job.warnings[0]
    shop.render(job)
    shop.finish()
    fetch_dataset(shop.store, shop.layout(job), tmp_path)
    told = [
        json.loads(line) for line in (tmp_path / "rejected_rows.jsonl").read_text().splitlines()
    ]
    assert [one["where"] for one in told] == [f"f.jsonl, line {n}" for n in (2, 3, 4, 5, 6, 7)]
    assert "not JSON" in told[0]["error"]
    assert "rejected_rows.jsonl" in (tmp_path / "README.md").read_text()


def test_where_every_row_is_bad_nothing_is_made(shop: Workshop) -> None:
    reading = Reading(bad_rows="quarantine")
    with pytest.raises(InvalidInput, match="no prompt"):
        shop.submit(read_rows(io.BytesIO(b"{}\n{}\n"), "jsonl", "f", reading), source=reading)
    many = read_rows(io.BytesIO(b"{}\n" * 10_001), "jsonl", "f", reading)
    with pytest.raises(InvalidInput, match="line 10001: more than 10000 rows"):
        shop.submit(many, source=reading)
    assert list(shop.store.list("")) == []


def test_a_client_says_where_a_bad_row_stood(api: RunningApi, tmp_path: Path) -> None:
    folder(tmp_path / "in")
    (tmp_path / "in" / "2.csv").write_text("caption,id\nc,1\nd\n")
    with Client(api.url) as client:
        with pytest.raises(InvalidInput, match=r"2.csv, line 3: the row has 1 cells"):
            client.submit(JobRequest(source=READING), tmp_path / "in")
        request = JobRequest(source=READING.model_copy(update={"bad_rows": "quarantine"}))
        assert client.dry_run(request, tmp_path / "in").images == 3


# ---- S3 ----


@pytest.fixture
def inbox(api: RunningApi) -> Iterator[str]:
    """The address of an API that reads prompts from a folder of its bucket."""
    place = f"s3://{api.settings.s3_bucket}/inbox/{{tenant}}/"
    with serving(api.settings.model_copy(update={"prompt_sources": place})) as url:
        yield url


def test_a_folder_in_s3_is_read(api: RunningApi, inbox: str, tmp_path: Path) -> None:
    folder(tmp_path)
    mine = f"inbox/{api.settings.tenant}/more"
    for path in tmp_path.rglob("*.*"):
        name = path.relative_to(tmp_path).as_posix()
        api.store.put(f"{mine}/{name}", path.read_bytes(), content_type="x/y")
    uri = f"s3://{api.settings.s3_bucket}/{mine}/"
    with Client(inbox) as client:
        assert list(client.dry_run(JobRequest(source=READING), Stored(uri)).preview) == EXPECTED
        single = Stored(f"{uri}deeper/1.parquet")
        assert client.dry_run(JobRequest(source=READING), single).images == 1
        for wrong in (f"{uri}none/", f"s3://{api.settings.s3_bucket}/inbox/", f"{uri}../"):
            with pytest.raises(InvalidInput, match="prompts_from"):
                client.dry_run(JobRequest(source=READING), Stored(wrong))
        with pytest.raises(InvalidInput, match="no etag"):
            client.dry_run(JobRequest(source=READING), Stored(uri, "x"))


def test_no_module_of_the_folder_one_stands_in_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "tarfile", "pyarrow"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()", "utf-8")
    monkeypatch.chdir(tmp_path)
    parquet(tmp_path / "rows.parquet")
    assert rows(tmp_path / "rows.parquet") == EXPECTED
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "x", "@error": 5},
        {"prompt": "x", "@error": None},
        {"prompt": "x", "c": ["y" * 4_000] * 4},
    ],
)
def test_rows_of_hostile_values_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        list(read_inline([row]))


def test_more_rows_than_a_job_may_have_are_refused_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.intake.MAX_ROWS", 10)
    lines = [{"prompt": "x", "repeats": 9}, {"prompt": "y", "repeats": 9}]
    with pytest.raises(TooLarge, match="more than 10 rows"):
        list(tally_of(None, read_inline(lines)))
