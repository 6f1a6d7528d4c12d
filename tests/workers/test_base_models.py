"""Base models from a folder, one file, or a store; another autoencoder; precision by family."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.errors import BadConfiguration
from jobs.recipe import Recipe, RecipeRequest
from jobs.settings import Settings
from jobs.store import Store
from tests.single_file import write_single_file
from tests.small_bases import SmallBase, random_pairs, save_vae
from workers.depot import Depot
from workers.engine import load_engine
from workers.weights import files_of, verified

CPU = torch.device("cpu")


def recipe_of(small: SmallBase, **request: Any) -> Recipe:
    return small.catalog.resolve(RecipeRequest.model_validate({"model": "small", **request}))


def test_another_autoencoder(small_sd15: SmallBase, tmp_path: Path) -> None:
    save_vae(tmp_path / "vae")
    small_sd15.vaes["fix"] = small_sd15.autoencoder(
        tmp_path / "vae", file="diffusion_pytorch_model.safetensors"
    )
    own, other = recipe_of(small_sd15), recipe_of(small_sd15, vae="fix")
    assert own.engine_key != other.engine_key
    wanted = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    depot = Depot(tmp_path / "cache", 10**9)
    for _ in range(2):
        found = load_engine(other, CPU, depot).vae.state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    kept = load_engine(own, CPU, depot).vae.state_dict()
    assert not torch.equal(kept["decoder.conv_in.weight"], wanted["decoder.conv_in.weight"])


@pytest.mark.parametrize(
    ("dtype", "vae"),
    [("float16", torch.float32), ("bfloat16", torch.bfloat16), ("float32", torch.float32)],
)
def test_precision_by_family(small_sd15: SmallBase, dtype: str, vae: torch.dtype) -> None:
    """An autoencoder that says force_upcast decodes in float32 where half precision overflows."""
    engine = load_engine(recipe_of(small_sd15, dtype=dtype), CPU)
    assert engine.unet.dtype == getattr(torch, dtype)
    assert engine.vae.dtype == vae


def test_the_wanted_variant_alone_counts(small_sd15: SmallBase, tmp_path: Path) -> None:
    """Twins in half precision beside the weights are neither read nor part of the digest."""
    folder = Path(shutil.copytree(small_sd15.folder, tmp_path / "base"))
    _, before = verified(recipe_of(small_sd15).base)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    twin = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    save_file({name: one.half() for name, one in load_file(weights).items()}, twin)
    (folder / "sd15.safetensors").write_bytes(weights.read_bytes())
    small = SmallBase("sd15", folder, small_sd15.entry)
    assert verified(recipe_of(small).base)[1] == before
    assert twin not in files_of(folder)
    small.model["variant"] = "fp16"
    assert twin in files_of(folder, "fp16")
    assert weights not in files_of(folder, "fp16")
    found = load_engine(recipe_of(small), CPU).unet.conv_in.weight
    assert torch.equal(found, load_file(twin)["conv_in.weight"].float())


def test_weights_in_a_store(
    small_sd15: SmallBase, s3_settings: Settings, store: Store, tmp_path: Path
) -> None:
    """Copied once, kept, checked by digest; copied anew when an object changes."""
    for file in small_sd15.folder.rglob("*"):
        if file.is_file():
            store.put_file(f"models/small/{file.relative_to(small_sd15.folder)}", file)
    (tmp_path / "unused.bin").write_bytes(b"pickle")
    store.put_file("models/small/unet/unused.bin", tmp_path / "unused.bin")
    lora = small_sd15.lora("remote", random_pairs(small_sd15.unet, ("to_q",), 7), "peft")
    store.put_file("loras/remote.safetensors", lora)

    depot = Depot(tmp_path / "cache", 10**9, settings=s3_settings)
    bucket = s3_settings.s3_bucket
    small = SmallBase("sd15", small_sd15.folder, small_sd15.entry)
    _, here = verified(recipe_of(small).base)
    small.model["source"] = f"s3://{bucket}/models/small"
    small.style("remote", lora, source=f"s3://{bucket}/loras/remote.safetensors")
    recipe = recipe_of(small, styles=[{"name": "remote"}])
    place, there = verified(recipe.base, depot)
    assert there == here
    assert not list(place.rglob("*.bin"))
    first = load_engine(recipe, CPU, depot)
    assert first.styles[0].startswith("remote=0.8@")
    assert verified(recipe.base, depot)[0] == place

    store.put("models/small/unet/more.json", b"{}")
    changed, digest = verified(recipe.base, depot)
    assert changed != place
    assert digest != here
    pinned = recipe.base.model_copy(update={"sha256": here})
    with pytest.raises(BadConfiguration, match="digest"):
        verified(pinned, depot)
    nothing = recipe.base.model_copy(update={"source": f"s3://{bucket}/nowhere"})
    with pytest.raises(BadConfiguration, match="no object to load"):
        verified(nothing, depot)
    with pytest.raises(BadConfiguration, match="cache folder"):
        verified(recipe.base, Depot(settings=s3_settings))


def test_one_file_needs_a_configuration(small_sd15: SmallBase, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1)}, file)
    small = SmallBase("sd15", small_sd15.folder, small_sd15.entry)
    small.model["source"] = f"path:{file}"
    with pytest.raises(BadConfiguration, match="set config in the catalog"):
        load_engine(recipe_of(small), CPU)
    small.model["config"] = f"path:{small_sd15.folder}"
    with pytest.raises(BadConfiguration, match="do not load as a sd pipeline"):
        load_engine(recipe_of(small), CPU)


def test_one_file_loads_without_a_network(
    small_sd15: SmallBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a local folder for configuration and tokenizers: the very nets of the folder."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    file = tmp_path / "model.safetensors"
    write_single_file(small_sd15.folder, file)
    small = SmallBase("sd15", small_sd15.folder, small_sd15.entry)
    wanted = load_engine(recipe_of(small), CPU)
    small.model |= {"source": f"path:{file}", "config": f"path:{small_sd15.folder}"}
    found = load_engine(recipe_of(small), CPU)
    for part in ("unet", "vae", "text_encoder"):
        one = getattr(wanted.pipeline, part).state_dict()
        two = getattr(found.pipeline, part).state_dict()
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one), part
    assert found.scheduler_config == wanted.scheduler_config
