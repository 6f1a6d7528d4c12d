"""Fused engines on the node's disk: the same bits, made once, bounded, never trusted blindly."""

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.catalog import Catalog
from jobs.recipe import Recipe, RecipeRequest, StyleWeight
from workers import engine as engines
from workers import tiny
from workers.depot import SHELVES, USED, Depot
from workers.engine import Engine, load_engine

CPU = torch.device("cpu")
PARTS = ("unet", "vae", "text_encoder")


def tensors(engine: Engine) -> Iterator[tuple[str, torch.Tensor]]:
    for part in PARTS:
        net = getattr(engine.pipeline, part)
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            yield f"{part}.{name}", tensor


def entries(depot: Depot) -> list[Path]:
    assert depot.cache is not None
    return sorted(one for shelf in SHELVES for one in (depot.cache / shelf).glob("[!.]*"))


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "cache", cache_bytes=10**9)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes whose base was read and fused."""
    found: list[Recipe] = []
    whole = engines._make

    def counted(recipe: Recipe, *rest: Any) -> Any:
        found.append(recipe)
        return whole(recipe, *rest)

    monkeypatch.setattr(engines, "_make", counted)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kept_engine_is_the_fused_one(
    catalog: Catalog, depot: Depot, made: list[Recipe], dtype: str
) -> None:
    request = {"dtype": dtype, "styles": [{"name": "outline", "weight": 0.8}]}
    recipe = catalog.resolve(RecipeRequest.model_validate(request))
    first, second = load_engine(recipe, CPU, depot), load_engine(recipe, CPU, depot)
    assert made == [recipe]
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    assert len(pairs) > 200
    for (name, one), (other, two) in pairs:
        assert name == other
        assert one.dtype == two.dtype
        assert one.stride() == two.stride(), name
        assert torch.equal(one, two), name
    assert second.load_times.base_ms == second.load_times.fuse_ms == 0.0
    assert second.load_times.cache_ms > 0.0
    assert second.styles == first.styles
    assert not any(tensor.requires_grad for _, tensor in tensors(second))


def test_several_renderers_of_a_node_fuse_once(
    catalog: Catalog, depot: Depot, made: list[Recipe]
) -> None:
    recipe = catalog.resolve(RecipeRequest())
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: load_engine(recipe, CPU, depot), range(3)))
    assert made == [recipe]
    weights = [engine.unet.conv_in.weight for engine in found]
    assert all(torch.equal(one, weights[0]) for one in weights)


def test_other_weights_are_another_entry(catalog: Catalog, depot: Depot) -> None:
    """Also where the catalog pins no digest: the entry is named by what was found."""
    asked = [RecipeRequest(styles=(StyleWeight(name="outline", weight=w),)) for w in (0.5, 0.8)]
    for request in asked:
        load_engine(catalog.resolve(request), CPU, depot)
    unpinned = catalog.styles["outline"].model_copy(
        update={"source": f"path:{tiny.LCM_LORA_DIR}", "sha256": ""}
    )
    other = catalog.model_copy(update={"styles": {"outline": unpinned}, "accelerators": {}})
    request = RecipeRequest(accelerator="none", styles=(StyleWeight(name="outline", weight=0.5),))
    load_engine(other.resolve(request), CPU, depot)
    assert len(entries(depot)) == 3


def test_a_damaged_entry_is_made_again(catalog: Catalog, depot: Depot, made: list[Recipe]) -> None:
    recipe = catalog.resolve(RecipeRequest())
    wanted = load_engine(recipe, CPU, depot)
    file = entries(depot)[0] / "unet" / "weights.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-7] ^= 1
    file.write_bytes(bytes(raw))
    again = load_engine(recipe, CPU, depot)
    assert made == [recipe, recipe]
    for (name, one), (_, two) in zip(tensors(wanted), tensors(again), strict=True):
        assert torch.equal(one, two), name
    (entries(depot)[0] / "vae" / "config.json").unlink()
    load_engine(recipe, CPU, depot)
    assert len(made) == 3


def test_a_full_disk_costs_no_job(
    catalog: Catalog, depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workers.fused_cache.save_file", full)
    assert load_engine(catalog.resolve(RecipeRequest()), CPU, depot).unet is not None
    assert entries(depot) == []
    assert depot.cache is not None
    assert list((depot.cache / "engines").iterdir()) == []


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
