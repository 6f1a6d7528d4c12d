"""The proof's reader: what agrees is told so, and whatever was changed is found."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.fetch import fetch_dataset
from jobs.redis_client import control_client
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.proof.reading import read_fetched
from tests.rendered_jobs import Workshop

pytestmark = pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)


@pytest.fixture
def fetched(redis_url: str, store: Store, tmp_path: Path) -> Path:
    """A dataset of five images, one of which could not be made."""
    shop = Workshop(ShardQueue(control_client(redis_url)), store, broken={3})
    job = shop.submit([Row(prompt=f"prompt {n}") for n in range(5)], shard_images=3)
    shop.render(job)
    shop.finish()
    fetch_dataset(store, shop.layout(job), tmp_path)
    return tmp_path


def test_what_agrees_is_told_so(fetched: Path) -> None:
    found = read_fetched(fetched)
    assert found.wrong == []
    assert (found.images, found.shards, len(found.pictures), found.missing.keys()) == (5, 2, 4, {3})


def _told_anew(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """An index that somebody changed, and whose digest was told anew."""
    path = folder / "index.json"
    index = json.loads(path.read_text("utf-8"))
    change(index)
    before = sha256(path.read_bytes()).hexdigest()
    path.write_text(json.dumps(index), "utf-8")
    told = (folder / "_SUCCESS").read_text("utf-8")
    after = sha256(path.read_bytes()).hexdigest()
    (folder / "_SUCCESS").write_text(told.replace(before, after), "utf-8")


def _without_a_row(folder: Path) -> None:
    """A table that lost its last row, and is named by the index as it is now."""

    def change(index: dict[str, Any]) -> None:
        facts = index["shards"][0]["parquet"]
        path = folder / facts["name"]
        table = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist(table.to_pylist()[:-1], table.schema), path)
        facts |= {
            "bytes": path.stat().st_size,
            "sha256": sha256(path.read_bytes()).hexdigest(),
        }

    _told_anew(folder, change)


def _another_byte(folder: Path) -> None:
    path = next((folder / "train").glob("*.tar"))
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def _longer_index(folder: Path) -> None:
    text = (folder / "index.json").read_text("utf-8")
    (folder / "index.json").write_text(text + " ", "utf-8")


def _shard_twice(index: dict[str, Any]) -> None:
    index["shards"].append(index["shards"][0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_another_byte, "not the bytes that the index names"),
        (_without_a_row, "rows, the index differs"),
        (lambda one: _told_anew(one, lambda index: index.update(ok=5)), "counts otherwise"),
        (lambda one: _told_anew(one, lambda index: index.update(images=6)), "1 images lost"),
        (lambda one: _told_anew(one, lambda index: index["quarantine"].clear()), "images lost"),
        (lambda one: _told_anew(one, _shard_twice), "is there twice"),
        (lambda one: _told_anew(one, lambda index: index["shards"].pop()), "in no index"),
        (_longer_index, "another index"),
    ],
    ids=["byte", "row", "count", "images", "quarantine", "twice", "shard", "success"],
)
def test_what_was_changed_is_found(
    fetched: Path, change: Callable[[Path], object], says: str
) -> None:
    change(fetched)
    assert says in "; ".join(read_fetched(fetched).wrong)
