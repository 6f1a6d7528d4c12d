"""The decoder's finish: sharp edges from latents as the UNet leaves them, not as the encoder does.

The encoder stays as it is, so latents, teacher and adapters do not change their meaning.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from workers.distill_curve import Curve
from workers.tiny.autoencoder import reconstruction_loss
from workers.tiny.captions import draw_attributes
from workers.tiny.checkpoints import Run, device, rank
from workers.tiny.classifier import load_judge, to_tensor
from workers.tiny.scenes import SIDE, Scenes, render
from workers.tiny.teacher import Captioner, build_scheduler

_BATCH = 32
_CELLS = 8
"""Side of the latent windows round the objects that every other step is trained on."""

_LATEST = 400
"""Timesteps from which the UNet jumps to the path's end; later ones have forgotten the shape."""


class _Blemisher:
    """Latents of pictures as the UNet would leave them after a jump from a random timestep."""

    def __init__(
        self, vae: AutoencoderKL, encoder: CLIPTextModel, unet: UNet2DConditionModel
    ) -> None:
        self.vae, self.unet, self.curve = vae, unet, Curve.of(build_scheduler())
        self.captioner = Captioner(encoder, 0.0, 0.0)

    @torch.no_grad()
    def draw(self, rng: np.random.Generator, scenes: Scenes, clean: bool) -> Tensor:
        """Latents [n, 4, 16, 16]; ``clean`` only encodes."""
        latents = self.vae.encode(to_tensor(scenes.pictures)).latent_dist.sample()
        if clean:
            return latents
        times = torch.randint(0, _LATEST, (len(latents),), device=device())
        noisy = self.curve.add_noise(latents, torch.randn_like(latents), times)
        states = self.captioner.draw(rng, scenes.attributes.table())
        return self.curve.clean(noisy, self.unet(noisy, times, states).sample, times)


def object_windows(latents: Tensor, wanted: Tensor, boxes: np.ndarray) -> tuple[Tensor, Tensor]:
    """Latents [n, 4, 8, 8] and pictures [n, 3, 32, 32] round each object."""
    cell = SIDE // latents.shape[-1]
    corners = np.clip((boxes[:, :2] / cell - _CELLS / 2).round(), 0, latents.shape[-1] - _CELLS)
    small, big = [], []
    for k, (x, y) in enumerate(corners.astype(int).tolist()):
        small.append(latents[k, :, y : y + _CELLS, x : x + _CELLS])
        across = slice(x * cell, (x + _CELLS) * cell)
        big.append(wanted[k, :, y * cell : (y + _CELLS) * cell, across])
    layout = torch.channels_last
    return torch.stack(small).to(memory_format=layout), torch.stack(big).to(memory_format=layout)


def train_decoder(
    vae: AutoencoderKL, encoder: CLIPTextModel, unet: UNet2DConditionModel, minutes: float
) -> AutoencoderKL:
    """Train the decoder of a trained, standardised autoencoder further, in place."""
    torch.manual_seed(9)
    judge, blemisher = load_judge(1), _Blemisher(vae, encoder, unet)
    vae.requires_grad_(False)
    parts = {"decoder": vae.decoder, "post": vae.post_quant_conv}
    parameters = [p for part in parts.values() for p in part.requires_grad_(True).parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run("decoder", parts, optimiser, minutes, decay=0.99)
    rng = np.random.default_rng([9, run.step, rank()])
    torch.manual_seed(900 + rank() + run.step)
    while not run.done:
        window, hollow = run.step % 2 == 0, run.step % 8 < 2
        count = _BATCH if window else _BATCH // 4
        scenes = render(rng, draw_attributes(rng, count, "all"), hollow=hollow)
        latents, wanted = blemisher.draw(rng, scenes, clean=hollow), to_tensor(scenes.pictures)
        if window:
            latents, wanted = object_windows(latents, wanted, scenes.boxes)
        made = vae.decode(latents / vae.config.scaling_factor).sample
        loss = reconstruction_loss(judge, made, wanted)
        run.update(loss)
        if run.step % 48 == 0:
            run.log(loss=round(loss.item(), 4))
    run.averaged("decoder")
    run.averaged("post")
    return vae
