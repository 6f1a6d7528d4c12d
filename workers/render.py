"""The render loop: a fixed-shape batch of images through text, denoising and decoding."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.job import Image
from jobs.recipe import Recipe
from jobs.records import ErrorKind, StageTimes
from workers.engine import Engine
from workers.noise import draw_noise
from workers.sampler import make_sampler
from workers.text import Embedding, TextEncoder

#: Pixels decoded at once: a VAE's full-resolution maps are the peak of a batch's memory.
DECODE_PIXELS = 4 * 1024 * 1024


@dataclass(frozen=True)
class Rendered:
    """One image as pixels `[height, width, 3]` uint8, or why there are none."""

    pixels: NDArray[np.uint8] | None
    error: str
    tokens_lost: int
    position: int
    kind: ErrorKind = ""
    traceback: str = ""


@dataclass(frozen=True)
class Batch:
    """A rendered batch: one entry per image asked for, and its stage times per image."""

    images: list[Rendered]
    times: StageTimes


class BatchRenderer:
    """Renders batches with one engine. Pixels depend on recipe, prompt and seed alone."""

    def __init__(self, engine: Engine, moved: Callable[[], None] = lambda: None) -> None:
        """`moved` is called after every sampler step: the sign that the device does not hang."""
        self._engine = engine
        self._moved = moved
        self._text: dict[int, TextEncoder] = {}

    @torch.inference_mode()
    def render(self, recipe: Recipe, images: Sequence[Image]) -> Batch:
        """Render up to `recipe.batch_images` images; a shorter list is padded to that shape.

        A NaN or constant picture comes back as an error, never as pixels. Raises what torch
        raises where the device fails.
        """
        size = recipe.batch_images
        if not 0 < len(images) <= size:
            raise ValueError(f"a batch holds 1 to {size} images, not {len(images)}")
        clock = _Clock(self._engine.device)
        cond, uncond = self._embed(recipe, images)
        clock.lap("text")
        latents = self._denoise(recipe, images, cond, uncond)
        clock.lap("denoise")
        pixels, finite = self._decode(latents)
        clock.lap("decode")
        host = pixels.cpu().numpy()
        good = finite.cpu().tolist()
        clock.lap("transfer")
        rendered = [
            _judge(host[place], good[place], cond[place].lost, place)
            for place in range(len(images))
        ]
        return Batch(rendered, clock.per_image(len(images)))

    def _embed(
        self, recipe: Recipe, images: Sequence[Image]
    ) -> tuple[list[Embedding], list[Embedding]]:
        size = recipe.batch_images
        encoder = self._text.setdefault(size, TextEncoder(self._engine, size))
        padding = [""] * (size - len(images))
        cond = encoder.encode([image.row.prompt for image in images] + padding)
        if not recipe.guided:
            return cond, []
        negative = [image.row.negative_prompt for image in images] + padding
        return cond, encoder.encode(negative, negative=True)

    def _denoise(
        self,
        recipe: Recipe,
        images: Sequence[Image],
        cond: list[Embedding],
        uncond: list[Embedding],
    ) -> torch.Tensor:
        engine = self._engine
        sampler = make_sampler(recipe, engine.scheduler_config)
        noise = self._noise(recipe, images, sampler.draws)
        embeddings = torch.stack([one.tokens for one in uncond + cond])
        added = self._added(recipe, uncond + cond)
        latents = noise[0] * sampler.init_sigma
        for index, timestep in enumerate(sampler.timesteps):
            inputs = sampler.model_input(latents, index)
            if recipe.guided:
                inputs = torch.cat([inputs, inputs])
            prediction = engine.unet(
                inputs,
                timestep,
                encoder_hidden_states=embeddings,
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
            if recipe.guided:
                without, with_prompt = prediction.chunk(2)
                prediction = without + recipe.guidance * (with_prompt - without)
            more = noise[index + 1] if index + 1 < sampler.draws else None
            latents = sampler.step(prediction, latents, index, more)
            self._moved()
        return latents

    def _noise(self, recipe: Recipe, images: Sequence[Image], draws: int) -> torch.Tensor:
        engine = self._engine
        factor = engine.latent_factor
        channels = int(engine.unet.config.in_channels)
        seeds = [image.seed for image in images]
        seeds += [0] * (recipe.batch_images - len(images))
        shape = (channels, recipe.height // factor, recipe.width // factor)
        return draw_noise(seeds, shape, draws).to(engine.device, engine.dtype)

    def _added(self, recipe: Recipe, embeddings: list[Embedding]) -> dict[str, torch.Tensor] | None:
        """SDXL's further conditioning: pooled text and (size, crop, target size)."""
        pooled = [one.pooled for one in embeddings if one.pooled is not None]
        if not pooled:
            return None
        sizes = [recipe.height, recipe.width, 0, 0, recipe.height, recipe.width]
        ids = torch.tensor([sizes] * len(pooled), device=self._engine.device)
        return {"text_embeds": torch.stack(pooled), "time_ids": ids.to(self._engine.dtype)}

    def _decode(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels `[n, height, width, 3]` uint8 on the device, and which are finite `[n]`."""
        step = _decode_batch(latents, self._engine.latent_factor)
        parts = [self._decode_some(part) for part in latents.split(step)]
        pixels, finite = zip(*parts, strict=True)
        return torch.cat(pixels), torch.cat(finite)

    def _decode_some(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        decoded = self._pixels(latents)
        finite = _finite(decoded)
        if self._engine.vae.dtype != torch.float32 and not bool(finite.all()):
            # Only the bad ones are taken from float32: their neighbours keep their own pixels.
            exact = self._pixels_exactly(latents)
            decoded = torch.where(finite.view(-1, 1, 1, 1), decoded, exact)
            finite = _finite(decoded)
        unit = (decoded / 2 + 0.5).clamp(0, 1)
        return unit.mul(255).round().nan_to_num().to(torch.uint8).permute(0, 2, 3, 1), finite

    def _pixels(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self._engine.vae
        scaled = latents.to(vae.dtype) / vae.config.scaling_factor
        decoded: torch.Tensor = vae.decode(scaled, return_dict=False)[0].float()
        self._moved()
        return decoded

    def _pixels_exactly(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode in float32: half precision overflows in some autoencoders."""
        vae = self._engine.vae
        before = vae.dtype
        vae.to(torch.float32)
        try:
            return self._pixels(latents)
        finally:
            vae.to(before)


def _finite(pictures: torch.Tensor) -> torch.Tensor:
    """Which of `[n, 3, height, width]` have numbers only: `[n]`."""
    return torch.isfinite(pictures).flatten(1).all(1)


def _decode_batch(latents: torch.Tensor, factor: int) -> int:
    """Images decoded at once: the largest divisor of the batch within `DECODE_PIXELS`."""
    count, _, height, width = latents.shape
    limit = max(1, DECODE_PIXELS // (height * width * factor * factor))
    return max(part for part in range(1, count + 1) if count % part == 0 and part <= limit)


def _judge(pixels: NDArray[np.uint8], finite: bool, lost: int, place: int) -> Rendered:
    if not finite:
        text = "the picture has values that are not numbers (NaN)"
        return Rendered(None, text, lost, place, "nan")
    if pixels.min() == pixels.max():
        return Rendered(None, "the picture has one single colour value", lost, place, "flat")
    return Rendered(pixels, "", lost, place)


class _Clock:
    """Milliseconds between laps; on a GPU each lap waits for it, or it would time the launch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._laps: dict[str, float] = {}
        self._last = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def lap(self, stage: str) -> None:
        now = self._now()
        self._laps[stage] = (now - self._last) * 1e3
        self._last = now

    def per_image(self, images: int) -> StageTimes:
        share = {f"{stage}_ms": spent / images for stage, spent in self._laps.items()}
        return StageTimes(**share)
