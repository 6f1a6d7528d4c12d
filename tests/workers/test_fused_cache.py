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
from safetensors import SafetensorError

from jobs.catalog import Catalog
from jobs.errors import NoCapacity
from jobs.recipe import Recipe, RecipeRequest, StyleWeight
from workers import engine as engines
from workers import fused_cache, tiny
from workers.base_model import BaseFiles
from workers.depot import SHELVES, USED, Depot
from workers.engine import Engine, load_engine
from workers.fused_cache import fused_key

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


@pytest.mark.parametrize("note", ["[]", '{"parts": []}', '{"parts": {}}'])
def test_a_note_that_is_none_is_damage(
    catalog: Catalog, depot: Depot, made: list[Recipe], note: str
) -> None:
    recipe = catalog.resolve(RecipeRequest())
    load_engine(recipe, CPU, depot)
    (entries(depot)[0] / "about.json").write_text(note)
    load_engine(recipe, CPU, depot)
    assert made == [recipe, recipe]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_costs_no_job(
    catalog: Catalog, depot: Depot, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("workers.fused_cache.save_file", full)
    assert load_engine(catalog.resolve(RecipeRequest()), CPU, depot).unet is not None
    assert entries(depot) == []
    assert depot.cache is not None
    assert list((depot.cache / "engines").iterdir()) == []


def test_a_corrected_configuration_is_another_entry(
    catalog: Catalog, depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base in one file is built from a folder beside it; so do the libraries build it."""
    recipe = catalog.resolve(RecipeRequest())
    config = Path(shutil.copytree(tiny.MODEL_DIR, tmp_path / "config"))
    files = BaseFiles(tmp_path / "base.safetensors", "0" * 64, config)
    first = fused_key(recipe, files, [], [], depot)
    assert fused_key(recipe, files, [], [], depot) == first
    with (config / "unet" / "config.json").open("a") as file:
        file.write("\n")
    corrected = fused_key(recipe, files, [], [], depot)
    assert corrected != first
    whole = fused_cache.metadata.version
    monkeypatch.setattr(
        "workers.fused_cache.metadata.version",
        lambda name: "0.0" if name == "transformers" else whole(name),
    )
    assert fused_key(recipe, files, [], [], depot) != corrected


def test_a_full_gpu_costs_no_entry(
    catalog: Catalog, depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = catalog.resolve(RecipeRequest())
    load_engine(recipe, CPU, depot)
    kept = entries(depot)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("workers.fused_cache.load_file", full)
    with pytest.raises(NoCapacity):
        load_engine(recipe, CPU, depot)
    assert entries(depot) == kept


def test_an_entry_removed_while_it_is_read(
    catalog: Catalog, depot: Depot, made: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was marked before it was read, and what was read of it is an engine all the same."""
    recipe = catalog.resolve(RecipeRequest())
    load_engine(recipe, CPU, depot)
    (entry,) = entries(depot)
    os.utime(entry / USED, (1000, 1000))
    marks: list[float] = []
    whole = fused_cache._read

    def read(folder: Path, *rest: Any) -> Any:
        net = whole(folder, *rest)
        if not marks:
            marks.append((entry / USED).stat().st_mtime)
        if folder.name == PARTS[-1]:
            shutil.rmtree(entry)
        return net

    monkeypatch.setattr(fused_cache, "_read", read)
    assert load_engine(recipe, CPU, depot).unet is not None
    assert marks[0] > 1000
    assert not entry.exists()
    assert made == [recipe]


def test_a_note_without_the_second_text_encoder_is_damage(tmp_path: Path) -> None:
    """An SDXL pipeline would take its base's own one, without what was fused into it."""
    about = {"parts": dict.fromkeys(PARTS)}
    with pytest.raises(ValueError, match="does not name text_encoder_2"):
        fused_cache._check(tmp_path, about, "sdxl")
