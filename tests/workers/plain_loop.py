"""The render loop in its plainest form: what the fast one must equal to the last bit."""

from collections.abc import Sequence

import torch

from jobs.job import Image
from jobs.recipe import Recipe
from workers.engine import Engine
from workers.sampler import make_sampler


@torch.inference_mode()
def plain_pixels(engine: Engine, recipe: Recipe, images: Sequence[Image]) -> list[bytes]:
    """A padded batch through text encoder, UNet and decoder: nothing cached, nothing ahead."""
    padding = recipe.batch_images - len(images)
    seeds = [image.seed for image in images] + [0] * padding
    embeddings = _text(engine, [image.row.prompt for image in images] + [""] * padding)
    if recipe.guided:
        negative = [image.row.negative_prompt for image in images] + [""] * padding
        embeddings = torch.cat([_text(engine, negative), embeddings])
    sampler = make_sampler(recipe, engine.scheduler_config)
    noise = _noise(engine, recipe, seeds, sampler.draws)
    latents = noise[0] * sampler.init_sigma
    for index, timestep in enumerate(sampler.timesteps):
        inputs = sampler.model_input(latents, index)
        if recipe.guided:
            inputs = torch.cat([inputs, inputs])
        prediction = engine.unet(inputs, timestep, encoder_hidden_states=embeddings).sample
        if recipe.guided:
            without, with_prompt = prediction.chunk(2)
            prediction = without + recipe.guidance * (with_prompt - without)
        more = noise[index + 1] if index + 1 < sampler.draws else None
        latents = sampler.step(prediction, latents, index, more)
    decoded = engine.vae.decode(
        latents.to(engine.vae.dtype) / engine.vae.config.scaling_factor
    ).sample
    unit = (decoded.float() / 2 + 0.5).clamp(0, 1)
    pixels = unit.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return [one.contiguous().numpy().tobytes() for one in pixels[: len(images)]]


def _text(engine: Engine, prompts: list[str]) -> torch.Tensor:
    found: torch.Tensor = engine.pipeline.encode_prompt(
        prompts, device=engine.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )[0]
    return found


def _noise(engine: Engine, recipe: Recipe, seeds: list[int], draws: int) -> torch.Tensor:
    factor = engine.latent_factor
    shape = (1, 4, recipe.height // factor, recipe.width // factor)
    of_images = []
    for seed in seeds:
        generator = torch.Generator("cpu").manual_seed(seed)
        of_images.append([torch.randn(shape, generator=generator) for _ in range(draws)])
    of_draws = [torch.cat(some) for some in zip(*of_images, strict=True)]
    return torch.stack(of_draws).to(engine.dtype)
