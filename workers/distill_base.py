"""The base that is distilled: pictures and captions into batches, and an engine for samples."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from jobs.captioned import CaptionedPicture
from jobs.job import Image
from jobs.recipe import Recipe
from jobs.records import LoadTimes
from jobs.rows import Row
from workers.base_model import find_base, load_base
from workers.depot import Depot
from workers.distill import Batch
from workers.distill_data import cut
from workers.engine import Engine
from workers.render import BatchRenderer
from workers.text import TextEncoder

#: Encoded pictures that are remembered, in bytes: the next epoch need not encode them again.
KEPT_BYTES = 1 << 30


class Base:
    """A loaded base. Autoencoder and text encoders stay in float32; the UNet is the Distiller's."""

    def __init__(self, recipe: Recipe, device: torch.device, depot: Depot, batch: int) -> None:
        files = find_base(recipe, depot)
        pipeline = load_base(recipe, files)
        pipeline.to(device=device)
        for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
            net = getattr(pipeline, part, None)
            if net is not None:
                net.eval().requires_grad_(False)
        pipeline.unet.to(memory_format=torch.channels_last)
        self.recipe, self.device = recipe, device
        self.engine = Engine(
            engine_key=recipe.engine_key,
            family=recipe.family,
            pipeline=pipeline,
            device=device,
            dtype=torch.float32,
            model_sha256=files.sha256,
            accelerator_sha256="",
            styles=(),
            load_times=LoadTimes(),
        )
        self._text = TextEncoder(self.engine, batch)
        self._kept: dict[str, tuple[Tensor, Tensor, tuple[int, ...]]] = {}
        self._kept_bytes = 0

    @property
    def unet(self) -> Any:
        """The teacher's net, which the Distiller gives its adapters."""
        return self.engine.unet

    @torch.no_grad()
    def batch(self, pictures: Sequence[CaptionedPicture], generator: torch.Generator) -> Batch:
        """Latents drawn from the autoencoder's distributions with `generator`, and conditioning."""
        found = [self._moments(picture) for picture in pictures]
        mean = torch.stack([one[0] for one in found])
        deviation = torch.stack([one[1] for one in found])
        noise = torch.randn(mean.shape, generator=generator)
        latents = (mean.float() + deviation.float() * noise).to(self.device)
        told = self._text.encode([picture.caption for picture in pictures])
        empty = self._text.encode([""], negative=True) * len(pictures)
        states, nothing = (torch.stack([one.tokens for one in side]) for side in (told, empty))
        sizes = torch.tensor([one[2] for one in found], device=self.device)
        latents = latents.contiguous(memory_format=torch.channels_last)
        return Batch(latents, states, nothing, _added(told, sizes), _added(empty, sizes))

    def _moments(self, picture: CaptionedPicture) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Mean and deviation of a picture's latents, scaled, and its sizes.

        One picture at a time: the numbers then never depend on what else a step takes.
        """
        # By its place: a key may come twice in a tar.
        name = f"{picture.tar}:{picture.offset}"
        if name in self._kept:
            return self._kept[name]
        vae = self.engine.vae
        seen = cut(picture, self.recipe.width, self.recipe.height)
        spread = vae.encode(seen.pixels[None].to(self.device)).latent_dist
        factor = vae.config.scaling_factor
        mean, deviation = spread.mean[0].cpu() * factor, spread.std[0].cpu() * factor
        found = mean.half(), deviation.half(), seen.sizes
        if self._kept_bytes < KEPT_BYTES:
            self._kept[name] = found
            self._kept_bytes += mean.numel() * 4
        return found

    def sample(self, prompts: Sequence[str], dtype: torch.dtype) -> list[Any]:
        """Pictures uint8 [height, width, 3] of the prompts, seeds 0, 1, ..., by the renderer.

        With whatever adapter is active; `dtype` is the UNet's. A picture that is broken is None.
        """
        recipe, training = self.recipe, self.unet.training
        renderer = BatchRenderer(replace(self.engine, dtype=dtype))
        self.unet.eval()
        made: list[Any] = []
        try:
            for first in range(0, len(prompts), recipe.batch_images):
                some = [
                    Image(index=k, row_index=k, repeat=0, seed=k, row=Row(prompt=prompts[k]))
                    for k in range(first, min(first + recipe.batch_images, len(prompts)))
                ]
                made += [one.pixels for one in renderer.render(recipe, some).images]
        finally:
            self.unet.train(training)
        return made


def _added(embeddings: Sequence[Any], sizes: Tensor) -> dict[str, Any] | None:
    """SDXL's further conditioning of the UNet: pooled text and sizes; None for other bases."""
    pooled = [one.pooled for one in embeddings if one.pooled is not None]
    if not pooled:
        return None
    added = {"text_embeds": torch.stack(pooled), "time_ids": sizes.to(pooled[0])}
    return {"added_cond_kwargs": added}
