"""Weights that do not belong together, or are not what they seem: each is refused, and says why."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.errors import BadConfiguration
from jobs.recipe import RecipeRequest
from tests.small_bases import (
    Pairs,
    SmallBase,
    random_pairs,
    save_vae,
    write_lora,
)
from workers.engine import load_engine
from workers.lora import LORA_TARGETS


@pytest.fixture(scope="module")
def pairs(small_sd15: SmallBase) -> Pairs:
    return random_pairs(small_sd15.unet, LORA_TARGETS, seed=5)


def refused(small: SmallBase, **request: Any) -> str:
    """What loading says; it must name what is wrong, where, and what to do."""
    recipe = small.catalog.resolve(RecipeRequest.model_validate({"model": "small", **request}))
    with pytest.raises(BadConfiguration) as caught:
        load_engine(recipe, torch.device("cpu"))
    assert caught.value.where
    return str(caught.value)


def test_an_adapter_of_another_architecture(
    small_sd15: SmallBase, small_ssd_1b: SmallBase, pairs: Pairs
) -> None:
    """Shapes that do not fit, and modules that have no place."""
    theirs = random_pairs(small_ssd_1b.unet, LORA_TARGETS, seed=6)
    for layout in ("kohya", "peft"):
        small_sd15.accelerate("alien", small_sd15.lora("alien", theirs, layout))
        said = refused(small_sd15, accelerator="alien")
        assert "another architecture" in said, said


def test_half_of_the_modules_missing(small_sd15: SmallBase, pairs: Pairs) -> None:
    half = dict(list(pairs.items())[::2])
    small_sd15.accelerate("half", small_sd15.lora("half", half, "kohya", 2.0), modules=278)
    said = refused(small_sd15, accelerator="half")
    assert "it changes 139 modules of the UNet, the catalog says 278" in said


def test_half_of_a_pair_missing(small_sd15: SmallBase, pairs: Pairs) -> None:
    from safetensors.torch import load_file, save_file

    file = small_sd15.lora("torn", pairs, "peft")
    tensors = load_file(file)
    tensors.pop(next(key for key in tensors if key.endswith("lora_B.weight")))
    save_file(tensors, file)
    small_sd15.style("torn", file)
    assert "have one matrix of two" in refused(small_sd15, styles=[{"name": "torn"}])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number(small_sd15: SmallBase, pairs: Pairs, value: float) -> None:
    down, up = pairs["mid_block.resnets.0.conv1"]
    broken = {**pairs, "mid_block.resnets.0.conv1": (down, up.clone().fill_(value))}
    small_sd15.style("nan", small_sd15.lora("nan", broken, "peft"))
    said = refused(small_sd15, styles=[{"name": "nan"}])
    assert "mid_block.resnets.0.conv1.lora_B.weight" in said
    assert "not numbers" in said


def test_a_pickle(small_sd15: SmallBase, tmp_path: Path) -> None:
    """Under its own name the catalog does not take it; under ours the file is not opened so."""
    file = tmp_path / "style.safetensors"
    file.write_bytes(pickle.dumps({"a": 1}))
    small_sd15.style("pickled", file)
    assert "pickle" in refused(small_sd15, styles=[{"name": "pickled"}])


def test_another_kind_of_adapter(small_sd15: SmallBase, pairs: Pairs) -> None:
    from safetensors.torch import load_file, save_file

    file = small_sd15.lora("dora", pairs, "kohya", 2.0)
    tensors = load_file(file)
    name = next(iter(pairs)).replace(".", "_")
    save_file({**tensors, f"lora_unet_{name}.dora_scale": torch.ones(4)}, file)
    small_sd15.style("dora", file)
    assert "no plain LoRA" in refused(small_sd15, styles=[{"name": "dora"}])


def test_layout_and_alpha_are_what_the_catalog_says(small_sd15: SmallBase, pairs: Pairs) -> None:
    file = small_sd15.lora("told", pairs, "kohya", 2.0)
    small_sd15.style("told", file, layout="peft")
    assert "layout 'kohya'" in refused(small_sd15, styles=[{"name": "told"}])
    small_sd15.style("told", file, alpha=8.0)
    assert "it says alpha 2, the catalog says 8" in refused(small_sd15, styles=[{"name": "told"}])


def test_several_files_in_a_folder(small_sd15: SmallBase, pairs: Pairs, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_lora(tmp_path / f"{name}.safetensors", pairs, "peft")
    small_sd15.style("several", tmp_path)
    assert "name one of them" in refused(small_sd15, styles=[{"name": "several"}])
    entry = small_sd15.styles["several"].model_copy(update={"file": "b.safetensors"})
    small_sd15.styles["several"] = entry
    request = {"model": "small", "styles": [{"name": "several"}]}
    recipe = small_sd15.catalog.resolve(RecipeRequest.model_validate(request))
    assert load_engine(recipe, torch.device("cpu")).unet is not None


def test_a_base_of_another_architecture(small_sd15: SmallBase, small_ssd_1b: SmallBase) -> None:
    """Told apart by the UNet's configuration, before a weight is read."""
    small = SmallBase("sd15", small_ssd_1b.folder, small_sd15.entry)
    assert "the catalog says 'sd15'" in refused(small)
    real = small.catalog.architectures["sdxl"]
    small = SmallBase("sdxl", small_ssd_1b.folder, real)
    assert "the architecture of its UNet is 'unknown'" in refused(small)


def test_an_autoencoder_of_other_latents(small_sd15: SmallBase, tmp_path: Path) -> None:
    save_vae(tmp_path / "vae", latent_channels=16)
    small_sd15.vaes["wide"] = small_sd15.autoencoder(tmp_path / "vae")
    assert "latents of 4 channels, the autoencoder 16" in refused(small_sd15, vae="wide")
