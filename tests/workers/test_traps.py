"""The traps of fusing with diffusers and PEFT: each is shown, and our engine shown to avoid it.

`plain` does what documentation and forums suggest; the comparison is with weights by hand.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from jobs.catalog import Catalog
from jobs.recipe import Adapter, Dtype, Recipe, RecipeRequest, StyleWeight
from tests.small_bases import Pairs, SmallBase, delta, random_pairs
from workers import tiny
from workers.engine import load_engine
from workers.fusing import adapters_of

Weights = dict[str, torch.Tensor]


def plain(dtype: torch.dtype = torch.float32) -> Any:
    """The tiny base with both adapters loaded; the second is the only active one."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.MODEL_DIR, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tiny.OUTLINE_LORA_DIR, adapter_name="style")
    pipeline.load_lora_weights(tiny.LCM_LORA_DIR, adapter_name="lcm")
    return pipeline


def weights_of(unet: Any) -> Weights:
    """The weights of a UNet, without the adapters' own and their wrappers' names."""
    return {
        name.replace(".base_layer", ""): tensor.detach().clone()
        for name, tensor in unet.state_dict().items()
        if "lora_" not in name
    }


def in_file(folder: Path) -> tuple[Pairs, float]:
    """The matrices of a shipped adapter in float32, and its alpha over its rank."""
    with safe_open(next(folder.glob("*.safetensors")), framework="pt") as file:
        told = json.loads(file.metadata()["lora_adapter_metadata"])
        found = {key: file.get_tensor(key).float() for key in file.keys()}
    modules = {key.split(".lora_")[0] for key in found}
    pairs = {
        module.removeprefix("unet."): (
            found[f"{module}.lora_A.weight"],
            found[f"{module}.lora_B.weight"],
        )
        for module in modules
    }
    return pairs, told["unet.lora_alpha"] / told["unet.r"]


@cache
def base() -> Weights:
    """The tiny model's UNet as it was shipped, in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.MODEL_DIR, dtype=torch.float32)
    return weights_of(pipeline.unet)


def by_hand(lcm: float, style: float) -> Weights:
    """`W + lambda_lcm x alpha/rank x B A + lambda_style x ...`, the accelerator first."""
    found = {name: tensor.clone() for name, tensor in base().items()}
    for folder, weight in ((tiny.LCM_LORA_DIR, lcm), (tiny.OUTLINE_LORA_DIR, style)):
        pairs, scale = in_file(folder) if weight else ({}, 0.0)
        for module, (down, up) in pairs.items():
            found[f"{module}.weight"] += delta(down, up) * (weight * scale)
    return found


def far(one: Weights, two: Weights) -> float:
    """The largest difference of two sets of weights, relative to the largest weight."""
    assert one.keys() == two.keys()
    largest = max(float(tensor.abs().max()) for tensor in one.values())
    gaps = [float((one[name].float() - two[name].float()).abs().max()) for name in one]
    return max(gaps) / largest


def ours(catalog: Catalog, lcm: bool, style: float, dtype: Dtype = "float32") -> Weights:
    """What our engine holds."""
    request = RecipeRequest(
        accelerator=None if lcm else "none",
        styles=(StyleWeight(name="outline", weight=style),) if style else (),
        dtype=dtype,
    )
    return weights_of(load_engine(catalog.resolve(request), torch.device("cpu")).unet)


def test_a_the_scale_of_fuse_goes_to_whatever_is_active(catalog: Catalog) -> None:
    pipeline = plain()
    pipeline.fuse_lora(adapter_names=["style"], lora_scale=0.5)
    theirs = weights_of(pipeline.unet)
    assert far(theirs, by_hand(0.0, 1.0)) < 1e-6
    assert far(theirs, by_hand(0.0, 0.5)) > 1e-3
    assert far(ours(catalog, lcm=False, style=0.5), by_hand(0.0, 0.5)) == 0.0


def test_b_the_scale_of_fuse_persists(catalog: Catalog) -> None:
    pipeline = plain()
    pipeline.fuse_lora(lora_scale=0.5)
    pipeline.unfuse_lora()
    pipeline.fuse_lora(lora_scale=0.5)
    assert far(weights_of(pipeline.unet), by_hand(0.25, 0.0)) < 1e-5
    twice = [ours(catalog, lcm=True, style=0.5) for _ in range(2)]
    assert [far(one, by_hand(1.0, 0.5)) for one in twice] == [0.0, 0.0]


def test_c_the_scale_of_fuse_multiplies_all(catalog: Catalog) -> None:
    pipeline = plain()
    pipeline.set_adapters(["lcm", "style"], [1.0, 0.8])
    pipeline.fuse_lora(adapter_names=["lcm", "style"], lora_scale=0.5)
    assert far(weights_of(pipeline.unet), by_hand(0.5, 0.4)) < 1e-6
    assert far(ours(catalog, lcm=True, style=0.4), by_hand(1.0, 0.4)) == 0.0


def test_d_unfusing_after_unloading_does_nothing(catalog: Catalog) -> None:
    pipeline = plain()
    pipeline.fuse_lora(adapter_names=["lcm"])
    pipeline.unload_lora_weights()
    pipeline.unfuse_lora()
    assert far(weights_of(pipeline.unet), by_hand(1.0, 0.0)) < 1e-6
    ours(catalog, lcm=True, style=0.0)
    assert far(ours(catalog, lcm=False, style=0.0), base()) == 0.0


def test_e_unfusing_leaves_a_rest(catalog: Catalog) -> None:
    pipeline = plain(torch.bfloat16)
    before = weights_of(pipeline.unet)
    pipeline.fuse_lora(adapter_names=["lcm"])
    pipeline.unfuse_lora()
    assert far(weights_of(pipeline.unet), before) > 1e-4
    ours(catalog, lcm=True, style=0.0, dtype="bfloat16")
    assert far(ours(catalog, lcm=False, style=0.0, dtype="bfloat16"), before) == 0.0


def test_f_the_order_of_fusing_shows_in_half_precision(catalog: Catalog) -> None:
    found = []
    for order in (["lcm", "style"], ["style", "lcm"]):
        pipeline = plain(torch.bfloat16)
        pipeline.set_adapters(order, [1.0 if name == "lcm" else 0.8 for name in order])
        pipeline.fuse_lora(adapter_names=order)
        found.append(weights_of(pipeline.unet))
    assert far(*found) > 0.0
    once = {name: tensor.bfloat16() for name, tensor in by_hand(1.0, 0.8).items()}
    assert far(ours(catalog, lcm=True, style=0.8, dtype="bfloat16"), once) == 0.0
    # And whatever order a user names two styles in, there is one engine.
    entry = catalog.styles["outline"]
    both = catalog.model_copy(update={"styles": {"outline": entry, "again": entry}})
    pair = (StyleWeight(name="outline", weight=0.8), StyleWeight(name="again", weight=0.3))
    one, two = (both.resolve(RecipeRequest(styles=order)) for order in (pair, pair[::-1]))
    assert one.engine_key == two.engine_key
    assert [style.name for style in _fused_in_order(one)] == ["again", "outline"]
    assert _fused_in_order(one) == _fused_in_order(two)


def _fused_in_order(recipe: Recipe) -> list[Adapter]:
    return adapters_of(recipe)[1:]


def test_g_a_dictionary_of_weights_leaves_out_the_residual_blocks(small_sd15: SmallBase) -> None:
    small = small_sd15
    pairs = random_pairs(small.unet, ("to_q", "conv1"), seed=8)
    small.style("blocks", small.lora("blocks", pairs, "peft"))
    wanted = {name: tensor.clone() for name, tensor in small.unet.items()}
    for module, (down, up) in pairs.items():
        wanted[f"{module}.weight"] += delta(down, up) * 0.8

    pipeline = StableDiffusionPipeline.from_pretrained(small.folder, dtype=torch.float32)
    pipeline.load_lora_weights(small.folder.parent / "blocks.safetensors", adapter_name="style")
    pipeline.set_adapters(["style"], [{"unet": {"down": 0.8, "mid": 0.8, "up": 0.8}}])
    pipeline.fuse_lora(adapter_names=["style"])
    theirs = weights_of(pipeline.unet)
    off = {name for name in wanted if float((theirs[name] - wanted[name]).abs().max()) > 1e-4}
    assert off
    assert off <= {f"{module}.weight" for module in pairs if module.endswith("conv1")}

    request = {"model": "small", "styles": [{"name": "blocks", "weight": 0.8}]}
    recipe = small.catalog.resolve(RecipeRequest.model_validate(request))
    assert far(weights_of(load_engine(recipe, torch.device("cpu")).unet), wanted) == 0.0


@pytest.mark.filterwarnings("ignore:All adapters are already merged")
def test_h_at_once_is_one_after_the_other(catalog: Catalog) -> None:
    pipeline = plain()
    pipeline.fuse_lora(adapter_names=["lcm"])
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(tiny.OUTLINE_LORA_DIR, adapter_name="style")
    pipeline.set_adapters(["style"], [0.8])
    pipeline.fuse_lora(adapter_names=["style"])
    pipeline.fuse_lora(adapter_names=["style"])
    made = ours(catalog, lcm=True, style=0.8)
    assert far(made, by_hand(1.0, 0.8)) == 0.0
    assert far(weights_of(pipeline.unet), made) < 1e-6


@pytest.mark.filterwarnings("ignore:Adapter lcm was active which is now deleted")
def test_i_deleting_a_fused_adapter_leaves_it_in(catalog: Catalog) -> None:
    pipeline = plain()
    pipeline.fuse_lora(adapter_names=["lcm"])
    pipeline.delete_adapters(["lcm"])
    assert far(weights_of(pipeline.unet), base()) > 1e-3
    engine = load_engine(catalog.resolve(RecipeRequest()), torch.device("cpu"))
    assert far(weights_of(engine.unet), by_hand(1.0, 0.0)) == 0.0
    assert not [name for name, _ in engine.unet.named_modules() if "lora" in name]
    assert not hasattr(engine.unet, "peft_config") or not engine.unet.peft_config


def test_loading_a_second_adapter_makes_it_the_only_active_one(catalog: Catalog) -> None:
    """Why both are named when they are fused: fusing what is active leaves one out."""
    pipeline = plain()
    assert pipeline.get_active_adapters() == ["lcm"]
    assert far(ours(catalog, lcm=True, style=0.8), by_hand(1.0, 0.8)) == 0.0
