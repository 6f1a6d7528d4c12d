"""The real architectures: adapters in both layouts, fused exactly, rendered as diffusers does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler

from jobs.job import Image
from jobs.recipe import Recipe, RecipeRequest
from jobs.rows import Row
from tests.small_bases import MODULES, RANK, Pairs, SmallBase, delta, random_pairs
from workers.base_model import pipeline_class
from workers.engine import load_engine
from workers.lora import LORA_TARGETS
from workers.render import BatchRenderer
from workers.style import STYLE_TARGETS

CPU = torch.device("cpu")
#: Layout of the accelerator's file, the alpha in it, and its scale alpha/rank.
LAYOUTS = {
    "kohya, alpha 2": ("kohya", 2.0, 0.5),
    "peft, alpha in its metadata": ("peft", 8.0, 2.0),
    "kohya without alpha": ("kohya", None, 1.0),
    "peft without alpha": ("peft", None, 1.0),
}
#: Without alpha on one architecture only: what reads it knows no architecture.
COMBINED = [
    (name, layout)
    for name in MODULES
    for layout, (_, alpha, _) in LAYOUTS.items()
    if alpha is not None or name == "sd15"
]


def expected(
    weights: dict[str, torch.Tensor], parts: list[tuple[Pairs, float]]
) -> dict[str, torch.Tensor]:
    """`W + sum of scale x B A`, by hand and in the order given."""
    found = {key: weight.clone() for key, weight in weights.items()}
    for pairs, scale in parts:
        for module, (down, up) in pairs.items():
            found[f"{module}.weight"] += delta(down, up) * scale
    return found


def targets_of(small: SmallBase) -> Pairs:
    pairs = random_pairs(small.unet, LORA_TARGETS, seed=1)
    assert len(pairs) == MODULES[small.name]
    return pairs


@pytest.mark.parametrize(("small", "layout"), COMBINED, indirect=["small"])
def test_fused_exactly_and_rendered_as_diffusers_does(small: SmallBase, layout: str) -> None:
    """Accelerator at 1.0 and a style at 0.8: error 0 in float32, and plain diffusers' picture."""
    kind, alpha, scale = LAYOUTS[layout]
    fast, style = targets_of(small), random_pairs(small.unet, STYLE_TARGETS, seed=2)
    small.accelerate("fast", small.lora("fast", fast, kind, alpha), modules=len(fast))
    small.style("style", small.lora("style", style, "peft"))
    request = {"model": "small", "accelerator": "fast", "styles": [{"name": "style"}]}
    recipe = small.catalog.resolve(RecipeRequest.model_validate(request))
    engine = load_engine(recipe, CPU)

    found = engine.unet.state_dict()
    wanted = expected(small.unet, [(fast, scale), (style, 0.8)])
    assert found.keys() == wanted.keys()
    assert max(float((found[key] - wanted[key]).abs().max()) for key in wanted) == 0.0
    assert not [name for name, _ in engine.unet.named_modules() if "lora" in name]

    row = Row(prompt="a big red circle")
    image = Image(index=0, row_index=0, repeat=0, seed=4_000_000_000, row=row)
    ours = BatchRenderer(engine).render(recipe, [image]).images[0].pixels
    theirs = by_diffusers(small, recipe, image, {"fast": 1.0, "style": 0.8})
    assert ours is not None
    assert np.abs(theirs.astype(int) - ours.astype(int)).max() <= 1


def by_diffusers(
    small: SmallBase, recipe: Recipe, image: Image, weights: dict[str, float]
) -> np.ndarray[Any, Any]:
    """The recipe in plain diffusers: adapters loaded and active, not fused."""
    pipeline = pipeline_class(recipe.family).from_pretrained(small.folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    for name in weights:
        pipeline.load_lora_weights(small.folder.parent / f"{name}.safetensors", adapter_name=name)
    pipeline.set_adapters(list(weights), list(weights.values()))
    return np.asarray(
        pipeline(
            image.row.prompt,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            width=recipe.width,
            height=recipe.height,
            generator=torch.Generator().manual_seed(image.seed),
        ).images[0]
    )


@pytest.mark.parametrize(
    ("policy", "alpha", "scale"),
    [("rank", 2.0, 1.0), (2.0, None, 0.5), (2.0, 2.0, 0.5), ("file", 2.0, 0.5)],
)
def test_alpha_policies(
    small_sd15: SmallBase, policy: str | float, alpha: float | None, scale: float
) -> None:
    """Released files differ: some name no alpha and were trained at 8 of 64."""
    small = small_sd15
    pairs = random_pairs(small.unet, ("to_q",), seed=3)
    small.style("odd", small.lora("odd", pairs, "kohya", alpha), alpha=policy)
    request = {"model": "small", "styles": [{"name": "odd", "weight": -0.7}]}
    engine = load_engine(small.catalog.resolve(RecipeRequest.model_validate(request)), CPU)
    wanted = expected(small.unet, [(pairs, -0.7 * scale)])
    found = engine.unet.state_dict()
    assert max(float((found[key] - wanted[key]).abs().max()) for key in wanted) < 1e-7
    assert RANK * scale == (RANK if policy == "rank" else 2.0)


def test_half_precision_files_are_fused_in_float32(small_sd15: SmallBase, tmp_path: Path) -> None:
    """The product of the two matrices is not rounded to the file's own precision."""
    small = small_sd15
    pairs = {
        module: (down.half(), up.half())
        for module, (down, up) in random_pairs(small.unet, LORA_TARGETS, seed=4).items()
    }
    small.style("half", small.lora("half", pairs, "peft"))
    request = {"model": "small", "styles": [{"name": "half", "weight": 1.0}]}
    engine = load_engine(small.catalog.resolve(RecipeRequest.model_validate(request)), CPU)
    full = {module: (down.float(), up.float()) for module, (down, up) in pairs.items()}
    wanted, found = expected(small.unet, [(full, 1.0)]), engine.unet.state_dict()
    assert max(float((found[key] - wanted[key]).abs().max()) for key in wanted) == 0.0
