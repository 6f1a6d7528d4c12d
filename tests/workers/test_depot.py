"""What a node keeps: bounded, marked while it is used, nothing half taken for whole."""

import os
import shutil
from pathlib import Path

import pytest

from jobs.recipe import Weights
from jobs.settings import Settings
from jobs.store import Store
from workers import tiny
from workers.depot import SHELVES, USED, Depot, temporary
from workers.s3_weights import from_s3


def entries(depot: Depot) -> list[Path]:
    assert depot.cache is not None
    return sorted(one for shelf in SHELVES for one in (depot.cache / shelf).glob("[!.]*"))


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "cache", cache_bytes=10**9)


def test_the_entry_unused_for_longest_goes(depot: Depot) -> None:
    """A folder of 100 bytes each, room for two; the one just made stays whatever its age."""
    assert depot.cache is not None
    small = Depot(depot.cache, cache_bytes=250)
    for age, name in enumerate(("oldest", "middle", "newest")):
        entry = depot.cache / "engines" / name
        entry.mkdir(parents=True)
        (entry / "weights").write_bytes(b"x" * 100)
        (entry / USED).touch()
        os.utime(entry / USED, (1000 + age, 1000 + age))
    small.touch(depot.cache / "engines" / "oldest")
    small.make_room(depot.cache / "engines" / "newest")
    assert [one.name for one in entries(depot)] == ["newest", "oldest"]
    Depot(depot.cache, cache_bytes=1).make_room(depot.cache / "engines" / "newest")
    assert [one.name for one in entries(depot)] == ["newest"]


def test_digests_are_not_taken_twice(
    depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.safetensors"
    shutil.copy(next(tiny.LCM_LORA_DIR.glob("*.safetensors")), file)
    first = depot.digests([file])

    def refuse(*_: object) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr("workers.depot.hashlib.file_digest", refuse)
    assert depot.digests([file]) == first
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(AssertionError, match="read again"):
        depot.digests([file])


def test_what_the_dead_left_of_a_key_goes(depot: Depot) -> None:
    entry, other = depot.entry("engines", "key"), depot.entry("engines", "key2")
    assert entry is not None
    assert other is not None
    dead, alive = temporary(entry), temporary(other)
    (dead / "weights").write_bytes(b"x")
    fresh = temporary(entry)
    assert not dead.exists()
    assert alive.is_dir()
    assert list(fresh.iterdir()) == []


def test_an_entry_that_is_going_is_copied_again(
    s3_settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is made by one process between its first and its last file; another asks meanwhile."""
    lora = next(tiny.LCM_LORA_DIR.glob("*.safetensors"))
    store.put_file("loras/one.safetensors", lora)
    weights = Weights(source=f"s3://{s3_settings.s3_bucket}/loras/one.safetensors")
    depot = Depot(tmp_path / "cache", 10**9, settings=s3_settings)
    file = from_s3(weights, depot)
    os.utime(file.parent / USED, (1000, 1000))
    assert from_s3(weights, depot) == file
    assert (file.parent / USED).stat().st_mtime > 1000
    with monkeypatch.context() as patch:
        patch.setattr("workers.depot.shutil.rmtree", lambda *_, **__: file.unlink())
        Depot(depot.cache, cache_bytes=1).make_room(tmp_path)
    assert file.parent.is_dir()
    assert from_s3(weights, depot) == file
    assert file.read_bytes() == lora.read_bytes()
