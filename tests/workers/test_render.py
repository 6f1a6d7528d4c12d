"""Pixels depend on recipe, prompt and seed, and on nothing else."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
)

from jobs.catalog import Catalog
from jobs.job import Image
from jobs.recipe import Recipe, RecipeRequest, StyleWeight
from jobs.rows import Row
from tests.workers.plain_loop import plain_pixels
from workers import tiny
from workers.engine import Engine, load_engine
from workers.noise import KEPT, NoiseAhead, draw_noise
from workers.render import BatchRenderer

PROMPTS = [
    "a big red circle",
    "a small blue star on a white background",
    "",
    "zażółć 日本 🎨 heart",
]


def image(index: int, prompt: str, seed: int, negative: str = "") -> Image:
    row = Row(prompt=prompt, negative_prompt=negative)
    return Image(index=index, row_index=index, repeat=0, seed=seed, row=row)


def images(count: int, first: int = 0) -> list[Image]:
    return [
        image(index, PROMPTS[index % len(PROMPTS)], 1000 + index)
        for index in range(first, first + count)
    ]


def pixels(engine: Engine, recipe: Recipe, asked: Sequence[Image]) -> list[bytes]:
    batch = BatchRenderer(engine).render(recipe, asked)
    assert [one.error for one in batch.images] == [""] * len(asked)
    return [one.pixels.tobytes() for one in batch.images if one.pixels is not None]


def test_neighbours_and_position_do_not_matter(engine: Engine, catalog: Catalog) -> None:
    recipe = catalog.resolve(RecipeRequest())
    wanted = image(7, "a green ring", 77)
    alone = pixels(engine, recipe, [wanted])[0]
    first = pixels(engine, recipe, [wanted, *images(5)])[0]
    last = pixels(engine, recipe, [*images(15), wanted])[15]
    others = pixels(engine, recipe, [*images(3, first=40), wanted, *images(2)])[3]
    assert alone == first == last == others


def test_full_batches_are_cut_anywhere(engine: Engine, catalog: Catalog) -> None:
    """Another shard size means other batches: the pictures are bit-equal."""
    recipe = catalog.resolve(RecipeRequest())
    asked = images(20)
    by_16 = pixels(engine, recipe, asked[:16]) + pixels(engine, recipe, asked[16:])
    by_7 = [one for start in (0, 7, 14) for one in pixels(engine, recipe, asked[start : start + 7])]
    assert by_16 == by_7


@pytest.mark.parametrize(
    "request_",
    [
        RecipeRequest(),
        RecipeRequest(steps=1),
        RecipeRequest(guidance=1.5),
        RecipeRequest(width=96, height=64),
        RecipeRequest(accelerator="none", steps=4),
        RecipeRequest(accelerator="none", steps=4, sampler="euler"),
        RecipeRequest(accelerator="none", steps=4, sampler="ddim", guidance=1.0),
        RecipeRequest(styles=(StyleWeight(name="outline", weight=0.8),)),
    ],
)
def test_equal_to_plain_diffusers(catalog: Catalog, request_: RecipeRequest) -> None:
    """Plain diffusers, fed with one row, makes the same picture within 1/255."""
    recipe = catalog.resolve(request_)
    engine = load_engine(recipe, torch.device("cpu"))
    asked = [image(0, PROMPTS[1], 5, "blue"), image(1, PROMPTS[0], 6)]
    ours = [one.pixels for one in BatchRenderer(engine).render(recipe, asked).images]
    pipeline = plain(recipe)
    for one, found in zip(asked, ours, strict=True):
        theirs = pipeline(
            one.row.prompt,
            negative_prompt=one.row.negative_prompt or None,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            width=recipe.width,
            height=recipe.height,
            generator=torch.Generator().manual_seed(one.seed),
        ).images[0]
        assert found is not None
        assert np.abs(np.asarray(theirs).astype(int) - found.astype(int)).max() <= 1


def plain(recipe: Recipe) -> StableDiffusionPipeline:
    """The recipe in plain diffusers: unfused adapters, its own scheduler."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.MODEL_DIR, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    kinds = {
        "lcm": LCMScheduler,
        "dpmpp": DPMSolverMultistepScheduler,
        "ddim": DDIMScheduler,
        "euler": EulerDiscreteScheduler,
    }
    pipeline.scheduler = kinds[recipe.sampler].from_config(
        pipeline.scheduler.config, **recipe.sampler_settings
    )
    names, weights = [], []
    if recipe.accelerator:
        pipeline.load_lora_weights(tiny.LCM_LORA_DIR, adapter_name="lcm")
        names, weights = ["lcm"], [1.0]
    for style in recipe.styles:
        pipeline.load_lora_weights(tiny.OUTLINE_LORA_DIR, adapter_name=style.name)
        names, weights = [*names, style.name], [*weights, style.weight]
    if names:
        pipeline.set_adapters(names, weights)
    return pipeline


@pytest.mark.parametrize(
    "request_",
    [
        RecipeRequest(),
        RecipeRequest(steps=1),
        RecipeRequest(guidance=1.5),
        RecipeRequest(width=96, height=64),
        RecipeRequest(accelerator="none", steps=3),
        RecipeRequest(accelerator="none", steps=3, sampler="euler"),
        RecipeRequest(dtype="bfloat16"),
    ],
)
def test_bit_equal_to_the_plain_loop(catalog: Catalog, request_: RecipeRequest) -> None:
    """Caches, noise drawn ahead and numbers worked out beforehand change no bit."""
    recipe = catalog.resolve(request_)
    engine = load_engine(recipe, torch.device("cpu"))
    asked = [image(n, PROMPTS[n % 4], 50 + n, "blue") for n in range(5)]
    renderer = BatchRenderer(engine)
    renderer.draw_ahead(recipe, asked[:3])
    first = renderer.render(recipe, asked).images
    again = renderer.render(recipe, asked).images
    plain_ones = plain_pixels(engine, recipe, asked)
    for made in (first, again):
        assert [one.pixels.tobytes() for one in made if one.pixels is not None] == plain_ones


def test_noise_drawn_ahead_is_the_same() -> None:
    ahead, shape = NoiseAhead(), (4, 8, 6)
    ahead.draw([3, 1, 2], shape, 4)
    ahead.draw([3, 9], shape, 4)
    assert torch.equal(ahead.take([1, 3, 5, 1], shape, 4), draw_noise([1, 3, 5, 1], shape, 4))
    assert torch.equal(ahead.take([9, 2], shape, 4), draw_noise([9, 2], shape, 4))


def test_noise_that_nobody_takes_is_dropped() -> None:
    ahead = NoiseAhead()
    ahead.draw(range(2 * KEPT), (1, 1, 1), 1)
    assert len(ahead._drawn) == KEPT


def test_tokens_lost_are_counted(engine: Engine, catalog: Catalog) -> None:
    recipe = catalog.resolve(RecipeRequest())
    long = " ".join(["red circle"] * 100)
    lost = [
        one.tokens_lost
        for one in BatchRenderer(engine).render(recipe, [image(0, long, 1), *images(1)]).images
    ]
    assert lost[0] > 100
    assert lost[1] == 0
