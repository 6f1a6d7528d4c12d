"""Every sampler keeps the renderer's contract: own seed, fixed batch, plain diffusers' picture."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    TCDScheduler,
)

from jobs.catalog import Catalog
from jobs.errors import BadConfiguration
from jobs.job import Image
from jobs.recipe import Recipe, RecipeRequest
from jobs.rows import Row
from jobs.samplers import SAMPLERS
from workers import tiny
from workers.engine import Engine, load_engine
from workers.noise import draw_noise
from workers.render import BatchRenderer
from workers.sampler import TableSampler, make_sampler, make_scheduler, tcd_steps

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}

WAYS = {
    "lcm": RecipeRequest(accelerator="none", sampler="lcm", steps=4, guidance=1.0),
    "tcd": RecipeRequest(accelerator="none", sampler="tcd", steps=4, guidance=2.0),
    "tcd, no noise": RecipeRequest(accelerator="none", sampler="tcd", steps=3, eta=0.0),
    "ddim": RecipeRequest(accelerator="none", sampler="ddim", steps=4, guidance=8.0),
    "dpm": RecipeRequest(accelerator="none", sampler="dpm", steps=4, guidance=8.0),
    "dpmpp": RecipeRequest(accelerator="none", sampler="dpmpp", steps=4, guidance=8.0),
    "euler": RecipeRequest(accelerator="none", sampler="euler", steps=4, guidance=1.0),
}
SCHEDULERS: dict[str, Any] = {
    "lcm": LCMScheduler,
    "tcd": TCDScheduler,
    "ddim": DDIMScheduler,
    "dpm": DPMSolverMultistepScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}


@pytest.fixture(scope="module")
def teacher(catalog: Catalog) -> Engine:
    """The tiny model without an accelerator: samplers share one engine."""
    return load_engine(catalog.resolve(WAYS["ddim"]), torch.device("cpu"))


@pytest.fixture(scope="module")
def plain() -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.MODEL_DIR, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image(index: int, prompt: str, seed: int, negative: str = "") -> Image:
    row = Row(prompt=prompt, negative_prompt=negative)
    return Image(index=index, row_index=index, repeat=0, seed=seed, row=row)


WANTED = image(7, "a green ring on a white background", 77, "blue")
OTHERS = [image(n, f"a small {colour} star", n) for n, colour in enumerate(("red", "blue", "grey"))]


def pixels(engine: Engine, recipe: Recipe, asked: list[Image], place: int) -> np.ndarray[Any, Any]:
    found = BatchRenderer(engine).render(recipe, asked).images[place]
    assert found.pixels is not None, found.error
    return found.pixels


@pytest.mark.parametrize("way", WAYS)
def test_the_contract(
    teacher: Engine, plain: StableDiffusionPipeline, catalog: Catalog, way: str
) -> None:
    """Alone, with neighbours and at another place: bit-equal; and what plain diffusers makes."""
    recipe = catalog.resolve(WAYS[way]).model_copy(update={"batch_images": 4})
    alone = pixels(teacher, recipe, [WANTED], 0)
    assert (alone == pixels(teacher, recipe, [*OTHERS, WANTED], 3)).all()
    assert (alone == pixels(teacher, recipe, [OTHERS[2], WANTED, OTHERS[0]], 1)).all()
    theirs = by_diffusers(plain, recipe, WANTED)
    assert np.abs(theirs.astype(int) - alone.astype(int)).max() <= 1


def by_diffusers(plain: StableDiffusionPipeline, recipe: Recipe, one: Image) -> Any:
    """One picture from its row by a pipeline's own call, with the settings that the row tells."""
    settings = {k: v for k, v in recipe.sampler_settings.items() if k != "eta"}
    base = DDIMScheduler.from_pretrained(tiny.MODEL_DIR, subfolder="scheduler").config
    plain.scheduler = SCHEDULERS[recipe.sampler].from_config(base, **settings)
    if recipe.sampler == "dpm":
        plain.scheduler.register_to_config(
            algorithm_type="dpmsolver", final_sigmas_type="sigma_min"
        )
    return np.asarray(
        plain(
            one.row.prompt,
            negative_prompt=one.row.negative_prompt,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            eta=float(recipe.sampler_settings.get("eta", 0.0)),  # type: ignore[arg-type]
            width=recipe.width,
            height=recipe.height,
            generator=torch.Generator().manual_seed(one.seed),
        ).images[0]
    )


def test_another_eta_is_another_picture(teacher: Engine, catalog: Catalog) -> None:
    """Trap j: diffusers' pipelines pass eta 0 unless told, its scheduler's default is 0.3."""
    made = [
        pixels(teacher, catalog.resolve(request), [WANTED], 0)
        for request in (WAYS["tcd"], WAYS["tcd"].model_copy(update={"eta": 0.0}))
    ]
    assert catalog.resolve(WAYS["tcd"]).sampler_settings == {"eta": 0.3}
    assert (made[0] != made[1]).any()


@pytest.mark.parametrize("config", [SD, {**SD, "prediction_type": "v_prediction"}, ZERO_SNR])
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0, 1e-9])
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_tcd_is_diffusers_tcd(config: dict[str, Any], eta: float, steps: int) -> None:
    """Our table with noise drawn beforehand equals the scheduler, which draws at each step."""
    seeds, shape = [3, 4_000_000_000], (4, 8, 8)
    predictions = torch.randn((steps, 2, *shape), generator=torch.Generator().manual_seed(1))
    scheduler = TCDScheduler(**config, clip_sample=False)
    scheduler.set_timesteps(steps)
    ours = TableSampler(tcd_steps(scheduler, eta))
    noise = draw_noise(seeds, shape, ours.draws)
    latents = noise[0]
    for index in range(steps):
        more = noise[index + 1] if index + 1 < ours.draws else None
        latents = ours.step(predictions[index], latents, index, more)

    theirs = TCDScheduler(**config, clip_sample=False)
    theirs.set_timesteps(steps)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    expected = torch.cat([torch.randn((1, *shape), generator=one) for one in generators])
    for index, timestep in enumerate(theirs.timesteps):
        expected = theirs.step(
            predictions[index], timestep, expected, eta=eta, generator=generators, return_dict=False
        )[0]
    scale = max(1.0, float(expected.abs().max()))
    assert ours.timesteps == theirs.timesteps.tolist()
    assert float((latents - expected).abs().max()) / scale < 1e-5


@pytest.mark.parametrize("name", SAMPLERS)
def test_settings_are_those_of_the_scheduler(name: str) -> None:
    """A setting that the scheduler does not know would be ignored without a word."""
    known = inspect.signature(SCHEDULERS[name].__init__).parameters
    assert SAMPLERS[name].settings - {"timesteps", "eta"} <= known.keys()  # type: ignore[index]


def test_draws_are_as_the_registry_says(catalog: Catalog) -> None:
    """Every accelerator's `draws_noise`, and LCM's trap of spacing: DMD2's own timesteps."""
    for name, entry in catalog.accelerators.items():
        model = next(m for m, e in catalog.models.items() if e.architecture in entry.architectures)
        free = catalog.model_copy(update={"allow_noncommercial": True})
        recipe = free.resolve(RecipeRequest(model=model, accelerator=name))
        sampler = make_sampler(recipe, dict(SD))
        noisy = entry.draws_noise and recipe.steps > 1
        assert sampler.draws == (recipe.steps if noisy else 1), name
        assert len(sampler.timesteps) == recipe.steps
        if name == "dmd2-sdxl":
            assert sampler.timesteps == [999, 749, 499, 249]


def test_a_base_that_clips_does_not_clip_lcm(catalog: Catalog) -> None:
    """`from_config` inherits clip_sample: latents beyond 1 would be cut."""
    recipe = catalog.resolve(RecipeRequest())
    scheduler = make_scheduler(recipe, {**SD, "clip_sample": True})
    assert scheduler.config.clip_sample is False


def test_fixed_timesteps(catalog: Catalog) -> None:
    recipe = catalog.resolve(RecipeRequest(steps=2))
    fixed = recipe.model_copy(
        update={"sampler_settings": {"original_inference_steps": 50, "timesteps": (999, 499)}}
    )
    assert make_sampler(fixed, dict(SD)).timesteps == [999, 499]


def test_an_unknown_setting_is_refused(catalog: Catalog) -> None:
    recipe = catalog.resolve(RecipeRequest())
    wrong = recipe.model_copy(update={"sampler_settings": {"orginal_inference_steps": 50}})
    with pytest.raises(BadConfiguration, match="orginal"):
        make_sampler(wrong, dict(SD))
