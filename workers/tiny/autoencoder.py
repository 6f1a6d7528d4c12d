"""The tiny model's autoencoder: pictures of 64x64 to latents of 16x16x4 and back."""

from collections.abc import Iterator

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from workers.tiny.captions import draw_attributes
from workers.tiny.checkpoints import Run, placed, rank
from workers.tiny.classifier import Judge, load_judge, to_tensor
from workers.tiny.scenes import Scenes, render

_CROP = 32
_BATCH = 16


def build_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder of about 0.3 million parameters; factor 4, no attention."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
        mid_block_add_attention=False,
    )


def _slopes(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return pictures.diff(dim=2), pictures.diff(dim=3)


def _crops(rng: np.random.Generator, pictures: Tensor, boxes: np.ndarray) -> Tensor:
    """One 32x32 window per picture around its object's edge."""
    angle = rng.uniform(0, 2 * np.pi, len(boxes))
    away = boxes[:, 2] * rng.uniform(0, 0.8, len(boxes))
    corner = boxes[:, :2] + np.stack([np.cos(angle), np.sin(angle)], 1) * away[:, None] - _CROP / 2
    corner = np.clip(corner.astype(int), 0, pictures.shape[-1] - _CROP)
    windows = [
        pictures[k, :, y : y + _CROP, x : x + _CROP] for k, (x, y) in enumerate(corner.tolist())
    ]
    return torch.stack(windows).contiguous(memory_format=torch.channels_last)


def _stream(rng: np.random.Generator) -> Iterator[Scenes]:
    """Endless pictures, an eighth of them hollow, so that the outline style can be decoded too."""
    while True:
        hollow = bool(rng.random() < 0.125)
        yield render(rng, draw_attributes(rng, _BATCH, "all"), hollow=hollow)


def reconstruction_loss(judge: Judge, made: Tensor, wanted: Tensor) -> Tensor:
    """Absolute, squared, slope and feature differences; what blurs an edge costs most."""
    loss = functional.l1_loss(made, wanted) + 2 * functional.mse_loss(made, wanted)
    for one, other in zip(_slopes(made), _slopes(wanted), strict=True):
        loss = loss + functional.l1_loss(one, other)
    for one, other in zip(judge.maps(made, 3), judge.maps(wanted, 3), strict=True):
        loss = loss + 0.1 * functional.l1_loss(one, other)
    return loss


def train_autoencoder(minutes: float = 14.0) -> AutoencoderKL:
    """Train on an endless stream; two thirds of the steps on crops at the objects' edges."""
    torch.manual_seed(2)
    judge = load_judge(1)
    vae = placed(build_autoencoder())
    optimiser = torch.optim.AdamW(vae.parameters(), lr=2.5e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run("autoencoder", {"vae": vae}, optimiser, minutes, decay=0.995)
    rng = np.random.default_rng([2, run.step, rank()])
    torch.manual_seed(200 + rank() + run.step)
    for scenes in _stream(rng):
        if run.done:
            break
        wanted = to_tensor(scenes.pictures)
        wanted = _crops(rng, wanted, scenes.boxes) if run.step % 3 else wanted[: _BATCH // 2]
        spread = vae.encode(wanted).latent_dist
        made = vae.decode(spread.sample()).sample
        narrowness = spread.kl().mean() / spread.mean[0].numel()
        loss = reconstruction_loss(judge, made, wanted) + 5e-4 * narrowness
        run.update(loss)
        if run.step % 90 == 0:
            error = functional.mse_loss(made, wanted).item()
            decibels = round(10 * np.log10(4 / error), 2)
            run.log(loss=round(loss.item(), 4), psnr=decibels, kl=round(narrowness.item(), 3))
    run.averaged("vae")
    whiten(vae)
    return vae


@torch.no_grad()
def whiten(vae: AutoencoderKL) -> None:
    """Fold each latent channel's mean and deviation into the convolutions next to the latent.

    Plain pipelines know one `scaling_factor` and no mean; so the channels are made standard here.
    """
    rng = np.random.default_rng(99)
    means = [
        vae.encode(to_tensor(render(rng, draw_attributes(rng, 128)).pictures)).latent_dist.mean
        for _ in range(4)
    ]
    latents = torch.cat(means)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= deviation[None, :, None, None]
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.bias[channels:] -= 2 * deviation.log()
    vae.register_to_config(scaling_factor=1.0)
