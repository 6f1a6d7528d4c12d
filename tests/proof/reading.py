"""A fetched dataset read by its files alone, without a line of the product: do they agree?"""

import hashlib
import json
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet


@dataclass
class Found:
    """What the files hold, and everything in which they disagree (wanted: nothing)."""

    images: int = 0
    shards: int = 0
    #: Image -> sha256 of its picture.
    pictures: dict[int, str] = field(default_factory=dict)
    #: Image -> its row, where it has a picture.
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: Image -> why it has none, as the quarantine says.
    missing: dict[int, str] = field(default_factory=dict)
    #: Images that a shard tried in vain.
    tried: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def read_fetched(folder: Path) -> Found:
    """Compare index, rows, tar members and digests of a dataset with one another."""
    index = json.loads((folder / "index.json").read_text("utf-8"))
    found = Found(index["images"], len(index["shards"]))
    said = (folder / "_SUCCESS").read_text("utf-8")
    if hashlib.sha256((folder / "index.json").read_bytes()).hexdigest() not in said:
        found.wrong.append("_SUCCESS names another index")
    for shard in index["shards"]:
        _read_shard(folder, shard, found)
    for one in index.get("quarantine", ()):
        _same_bytes(folder, one, found)
        # Beside the rows, the pictures that filters turned away.
        if one["name"].endswith(".parquet"):
            for row in pyarrow.parquet.read_table(folder / one["name"]).to_pylist():
                found.missing[row["image"]] = row["error"]
    _compare_whole(index, found)
    named = {one["name"] for one in index["shards"]}
    there = {f"train/{path.name}" for path in (folder / "train").glob("*.tar")}
    found.wrong += [f"{name}: in no index" for name in sorted(there - named)]
    return found


def _read_shard(folder: Path, shard: dict[str, Any], found: Found) -> None:
    _same_bytes(folder, shard, found)
    _same_bytes(folder, shard["parquet"], found)
    rows = pyarrow.parquet.read_table(folder / shard["parquet"]["name"]).to_pylist()
    with tarfile.open(folder / shard["name"]) as tar:
        members = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
    made = [row for row in rows if row["status"] == "ok"]
    if (len(rows), len(made)) != (shard["count"], shard["ok"]):
        found.wrong.append(f"{shard['name']}: {len(made)} of {len(rows)} rows, the index differs")
    found.tried.update(row["image"] for row in rows if row["status"] != "ok")
    expected = set()
    for row in made:
        expected |= {row["file_name"], f"{row['key']}.txt", f"{row['key']}.json"}
        _compare_picture(row, members, found)
    if expected != members.keys():
        found.wrong.append(f"{shard['name']}: its members are not those of its rows")


def _compare_picture(row: dict[str, Any], members: dict[str, bytes], found: Found) -> None:
    image, key = row["image"], row["key"]
    digest = hashlib.sha256(members.get(row["file_name"], b"")).hexdigest()
    told = json.loads(members.get(f"{key}.json", b"{}"))
    caption = members.get(f"{key}.txt", b"").decode()
    same = (digest, told.get("image"), told.get("seed"), caption) == (
        row["sha256"],
        image,
        row["seed"],
        row["prompt"],
    )
    if not same:
        found.wrong.append(f"image {image} ({key}): tar and parquet differ")
    if image in found.pictures:
        found.wrong.append(f"image {image} is there twice")
    found.pictures[image], found.rows[image] = digest, row


def _compare_whole(index: dict[str, Any], found: Found) -> None:
    both = found.pictures.keys() & found.missing.keys()
    neither = set(range(found.images)) - found.pictures.keys() - found.missing.keys()
    beyond = (found.pictures.keys() | found.missing.keys()) - set(range(found.images))
    for what, images in (("made and missing", both), ("lost", neither), ("not asked for", beyond)):
        if images:
            found.wrong.append(f"{len(images)} images {what}, the first {min(images)}")
    if (index["ok"], index["failed"]) != (len(found.pictures), len(found.missing)):
        found.wrong.append("the index counts otherwise than the rows")
    keys = Counter(row["key"] for row in found.rows.values())
    found.wrong += [f"the key {key} is there {n} times" for key, n in keys.items() if n > 1]


def _same_bytes(folder: Path, facts: dict[str, Any], found: Found) -> None:
    data = (folder / facts["name"]).read_bytes()
    if (len(data), hashlib.sha256(data).hexdigest()) != (facts["bytes"], facts["sha256"]):
        found.wrong.append(f"{facts['name']}: not the bytes that the index names")
