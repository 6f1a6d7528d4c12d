"""Hostile prompt files: clear errors, bounded memory, nothing written, whatever stands in them."""

import io
import json
import math
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InvalidInput
from jobs.rows import MAX_LINE, Row
from jobs.sources import child
from jobs.sources.reading import Reading, read_inline, read_rows

#: What a column may hold, values of one type in each.
KINDS: list[st.SearchStrategy[Any]] = [
    st.text(max_size=8),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=4),
    st.dates(date(1, 1, 1)),
    st.times(),
    st.datetimes(timezones=st.just(UTC)),
    st.decimals(-1_000, 1_000, places=2),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.just("a"), st.text(max_size=3), min_size=1),
]
NAMES = st.sampled_from(
    "prompt negative_prompt seed repeats width height steps guidance sampler model x image".split()
)


def made(lines: Iterator[dict[str, Any]]) -> list[Any]:
    """What a child process tells, as `table_records` and `read_rows` take it."""
    found = []
    try:
        for line in lines:
            found.append(json.loads(json.dumps(line)))
    except child.Fatal as error:
        what, remedy = error.args
        assert what
        assert remedy
    return found


def checked(lines: list[Any]) -> None:
    """Each record is a row that can be rendered, or is refused with its place."""
    places = ["here"]
    for line in lines:
        if "e" in line:
            assert all(isinstance(text, str) for text in line["e"])
            continue
        try:
            [row] = read_inline([line["v"]])
        except InvalidInput as error:
            places.append(error.where or "")
            continue
        assert row.prompt.strip()
        again = Row.model_validate_json(row.model_dump_json())
        assert again == row
        own = row.recipe.given if row.recipe else {}
        assert all(not isinstance(one, float) or math.isfinite(one) for one in own.values())
    assert all(places)


@st.composite
def tables(draw: Callable[..., Any]) -> pa.Table:
    rows = draw(st.integers(1, 3))
    columns = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)):
        values = draw(st.sampled_from(KINDS))
        columns[name] = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
    return pa.table(columns)


@settings(deadline=None, max_examples=150)
@given(tables())
def test_any_types_in_a_table_are_rows_or_are_refused(table: pa.Table) -> None:
    file = io.BytesIO()
    pq.write_table(table, file)
    file.seek(0)
    checked(made(child._parquet(file, [])))


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["a", "../a", "/etc/a", "./b", "a/../../c", "", ".", "é" * 60, "x\n"]),
        st.sampled_from([".txt", ".json", ".png", "", ".TXT", ".txt.txt"]),
        st.sampled_from(
            [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
        ),
        st.binary(max_size=30) | st.sampled_from([b'{"prompt": "p"}', b'{"caption": 5}', b"[[["]),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=200)
@given(MEMBERS, st.integers(0, 4_000), st.binary(max_size=4))
def test_any_archive_is_captions_or_is_refused(
    members: list[tuple[str, str, bytes, bytes]], at: int, noise: bytes
) -> None:
    """Links, devices, ways out and broken headers: names alone are read, and nothing is written."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for stem, end, kind, data in members:
            member = tarfile.TarInfo(f"{stem}{end}")
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(data))
    broken = bytearray(out.getvalue())
    broken[at : at + len(noise)] = noise
    found = made(child._tar(io.BytesIO(bytes(broken)), []))
    checked(found)
    assert "root:" not in json.dumps(found)


class Endless(io.RawIOBase):
    """A file of one line of so many bytes, none of which is held."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size

    def readable(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 < size <= MAX_LINE + 1
        count = min(size, self._left)
        self._left -= count
        return b"a" * count


@pytest.mark.parametrize("kind", ["text", "jsonl", "csv", "tsv"])
@pytest.mark.parametrize("bad_rows", ["refuse", "quarantine"])
def test_a_line_of_100_megabytes_takes_the_memory_of_one(kind: Any, bad_rows: Any) -> None:
    stream: BinaryIO = Endless(100_000_000)  # type: ignore[assignment]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"f, line 1|no prompt") as refused:
            list(read_rows(stream, kind, "f", Reading(bad_rows=bad_rows)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * MAX_LINE
    assert len(str(refused.value)) < 500


def test_values_of_a_table_that_json_does_not_know() -> None:
    moment = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    row = {"prompt": "a", "at": moment, "day": date(2026, 1, 2), "t": time(3), "d": Decimal("1.5")}
    [line] = made(iter([child._record(row)]))
    [found] = read_inline([line["v"]])
    assert found.extra == {"at": "2026-01-02T03:04:00+00:00", "day": "2026-01-02"} | {
        "t": "03:00:00",
        "d": "1.5",
    }


def test_nothing_is_written_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../out.txt", "/tmp/fewstep-out.txt", "in.txt"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    with path.open("rb") as file:
        assert len(list(read_rows(file, "tar", "t.tar", Reading()))) == 3
    assert [one.name for one in tmp_path.iterdir()] == ["t.tar"]
    assert not Path("/tmp/fewstep-out.txt").exists()
