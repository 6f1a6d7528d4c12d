"""The render loop: a fixed-shape batch of images through text, denoising and decoding."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from jobs.job import Image
from jobs.recipe import Recipe
from jobs.records import ErrorKind, StageTimes
from workers.decode import GOOD, NOT_NUMBERS, ONE_COLOUR, Decoder, in_float32
from workers.device_clock import DeviceClock, to_device, to_host
from workers.engine import Engine
from workers.noise import NoiseAhead, Shape
from workers.rendered import Rendered
from workers.sampler import DiffusersSampler, Sampler, make_sampler
from workers.text import Embedding, TextEncoder

#: What a batch is made with: the engine's dtype, the decoder in float32, or both nets in float32.
Precision = Literal["own", "exact_decoder", "exact"]

#: Recipes of which what their batches have in common is kept on the device.
CALLS_KEPT = 64

_TROUBLES: dict[int, tuple[str, ErrorKind]] = {
    NOT_NUMBERS: ("the picture has values that are not numbers (NaN)", "nan"),
    ONE_COLOUR: ("the picture has one single colour value", "flat"),
}


@dataclass(frozen=True)
class Nets:
    """The calls that stand in for an engine's own nets: compiled ones."""

    unet: Callable[..., Any]
    decode: Callable[..., Any]


class Batch:
    """A batch that the device was asked for; whoever looks at it waits until it is there."""

    def __init__(
        self,
        pixels: torch.Tensor,
        verdicts: torch.Tensor,
        lost: Sequence[int],
        batch_images: int,
        clock: DeviceClock,
    ) -> None:
        self._pixels = pixels
        self._verdicts = verdicts
        self._lost = lost
        self._batch_images = batch_images
        self._clock = clock

    @cached_property
    def times(self) -> StageTimes:
        """Stage times per image asked for."""
        self._clock.wait()
        spent = self._clock.milliseconds()
        return StageTimes(**{f"{stage}_ms": ms / len(self._lost) for stage, ms in spent.items()})

    @cached_property
    def images(self) -> list[Rendered]:
        """One entry per image asked for. Raises what torch raises where the device failed."""
        self._clock.wait()
        pixels, verdicts = self._pixels.numpy(), self._verdicts.tolist()
        made = []
        for place, lost in enumerate(self._lost):
            error, kind = _TROUBLES.get(verdicts[place], ("", ""))
            made.append(
                Rendered(
                    pixels=pixels[place] if verdicts[place] == GOOD else None,
                    error=error,
                    tokens_lost=lost,
                    position=place,
                    kind=kind,
                    batch_images=self._batch_images,
                    times=self.times,
                )
            )
        return made


class BatchRenderer:
    """Renders batches with one engine. Pixels depend on recipe, prompt and seed alone."""

    def __init__(
        self,
        engine: Engine,
        moved: Callable[[], None] = lambda: None,
        nets: Nets | None = None,
    ) -> None:
        """`moved` is called after every sampler step: the sign that the device does not hang."""
        self._engine = engine
        self._moved = moved
        self._nets = nets
        self._decoder = Decoder(engine, moved, nets.decode if nets else None)
        self._noise = NoiseAhead()
        self._text: dict[int, TextEncoder] = {}
        self._calls: OrderedDict[tuple[str, int], _Call] = OrderedDict()

    @property
    def device(self) -> torch.device:
        """Where its nets are."""
        return self._engine.device

    @torch.inference_mode()
    def render(
        self, recipe: Recipe, images: Sequence[Image], precision: Precision = "own"
    ) -> Batch:
        """Render up to `recipe.batch_images` images; a shorter list is padded to that shape.

        Asks the device and does not wait for it. A NaN or constant picture comes back as an
        error, never as pixels. Raises what torch raises where the device fails.
        """
        size = recipe.batch_images
        if not 0 < len(images) <= size:
            raise ValueError(f"a batch holds 1 to {size} images, not {len(images)}")
        clock = DeviceClock(self._engine.device)
        call = self._call(recipe)
        with attention(self._engine):
            cond, uncond = self._embed(recipe, images)
            clock.lap("text")
            exact_unet = precision == "exact"
            with in_float32(self._engine.unet) if exact_unet else nullcontext():
                latents = self._denoise(call, images, cond, uncond, exact_unet)
            clock.lap("denoise")
            exactly = precision != "own"
            pixels, verdicts = self._decoder.pixels(latents, exactly=exactly)
            clock.lap("decode")
        host, judged = to_host(pixels), to_host(verdicts)
        clock.lap("transfer")
        return Batch(host, judged, [one.lost for one in cond[: len(images)]], size, clock)

    def draw_ahead(self, recipe: Recipe, images: Sequence[Image]) -> None:
        """Begin to draw the noise of images that will be rendered soon."""
        call = self._call(recipe)
        self._noise.draw([image.seed for image in images], call.shape, call.draws)

    def _call(self, recipe: Recipe) -> "_Call":
        key = (recipe.batch_key, recipe.batch_images)
        if key not in self._calls:
            self._calls[key] = _Call(self._engine, recipe)
            if len(self._calls) > CALLS_KEPT:
                self._calls.popitem(last=False)
        self._calls.move_to_end(key)
        return self._calls[key]

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
        call: "_Call",
        images: Sequence[Image],
        cond: list[Embedding],
        uncond: list[Embedding],
        exactly: bool,
    ) -> torch.Tensor:
        engine, recipe, sampler = self._engine, call.recipe, call.sampler()
        dtype = torch.float32 if exactly else engine.dtype
        unet = engine.unet if exactly or self._nets is None else self._nets.unet
        noise = self._draw(call, images, dtype)
        embeddings = torch.stack([one.tokens for one in uncond + cond]).to(dtype)
        added = call.added(uncond + cond, dtype)
        latents = noise[0] * sampler.init_sigma
        for index, timestep in enumerate(call.timesteps):
            inputs = sampler.model_input(latents, index)
            if recipe.guided:
                inputs = torch.cat([inputs, inputs])
            prediction = unet(
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

    def _draw(self, call: "_Call", images: Sequence[Image], dtype: torch.dtype) -> torch.Tensor:
        seeds = [image.seed for image in images]
        seeds += [0] * (call.recipe.batch_images - len(images))
        noise = self._noise.take(seeds, call.shape, call.draws)
        return to_device(noise, self._engine.device, dtype)


class _Call:
    """What all batches of a recipe have in common, worked out once and kept on the device."""

    def __init__(self, engine: Engine, recipe: Recipe) -> None:
        self.recipe = recipe
        self._engine = engine
        self._config = engine.scheduler_config
        self._sampler = make_sampler(recipe, self._config)
        self.draws = self._sampler.draws
        factor = engine.latent_factor
        channels = int(engine.unet.config.in_channels)
        self.shape: Shape = (channels, recipe.height // factor, recipe.width // factor)
        # A number would be sent to the device at every step.
        self.timesteps = [
            torch.as_tensor(timestep, device=engine.device) for timestep in self._sampler.timesteps
        ]
        sizes = [recipe.height, recipe.width, 0, 0, recipe.height, recipe.width]
        self._sizes = torch.tensor(sizes, device=engine.device)

    def sampler(self) -> Sampler:
        """A table serves every batch; diffusers' own samplers keep the history of one."""
        if isinstance(self._sampler, DiffusersSampler):
            return make_sampler(self.recipe, self._config)
        return self._sampler

    def added(
        self, embeddings: list[Embedding], dtype: torch.dtype
    ) -> dict[str, torch.Tensor] | None:
        """SDXL's further conditioning: pooled text and (size, crop, target size)."""
        pooled = [one.pooled for one in embeddings if one.pooled is not None]
        if not pooled:
            return None
        ids = self._sizes.expand(len(pooled), -1).to(dtype)
        return {"text_embeds": torch.stack(pooled).to(dtype), "time_ids": ids}


def attention(engine: Engine) -> AbstractContextManager[None]:
    """The kernels of scaled dot product attention, in the order in which they are to be tried.

    Said outright, because torch's own order differs between its releases, and with it last bits.
    """
    flash, rest = SDPBackend.FLASH_ATTENTION, [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if engine.device.type != "cuda":
        return sdpa_kernel([flash, SDPBackend.MATH])
    hopper = torch.cuda.get_device_capability(engine.device) >= (9, 0)
    cudnn = SDPBackend.CUDNN_ATTENTION
    order = [cudnn, flash, *rest] if hopper else [flash, *rest, cudnn]
    return sdpa_kernel(order, set_priority=True)
