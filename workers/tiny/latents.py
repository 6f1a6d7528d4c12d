"""The training set of latents: drawn, encoded once, kept in the cache, and weighted."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from workers.tiny import cache_dir
from workers.tiny.captions import SHAPES, draw_attributes
from workers.tiny.checkpoints import device, rank, wait, world
from workers.tiny.classifier import to_tensor
from workers.tiny.scenes import SIDE, render

_HARD = ("star", "square")

PARTS = 20
"""Parts of the whole training set, of 2000 pictures each."""

_BIG_REACH = 20.7
"""Half the side of a big object's square in pixels: 1.1 times its radius, and 2."""


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, pictures: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Means and deviations [n, 4, 16, 16], scaled, of uint8 pictures [n, 64, 64, 3]."""
    means, deviations = [], []
    for start in range(0, len(pictures), 64):
        spread = vae.encode(to_tensor(pictures[start : start + 64])).latent_dist
        means.append(spread.mean.cpu() * vae.config.scaling_factor)
        deviations.append(spread.std.cpu() * vae.config.scaling_factor)
    return torch.cat(means), torch.cat(deviations)


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> NDArray[np.uint8]:
    """uint8 pictures [n, 64, 64, 3] of scaled latents [n, 4, 16, 16]."""
    made = []
    for start in range(0, len(latents), 64):
        part = latents[start : start + 64].to(device()) / vae.config.scaling_factor
        found = vae.decode(part).sample
        made.append(((found.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu())
    return torch.cat(made).permute(0, 2, 3, 1).contiguous().numpy()


def latent_part(vae: AutoencoderKL, part: int, n: int, hollow: bool = False) -> dict[str, Tensor]:
    """One part of the cached training set: latents, attributes and objects' boxes of ``n``."""
    path = cache_dir() / f"latents{'_hollow' if hollow else ''}_{part:03d}.pt"
    if not path.exists():
        rng = np.random.default_rng([4, part, int(hollow)])
        scenes = render(rng, draw_attributes(rng, n), hollow=hollow)
        mean, deviation = encode_latents(vae, scenes.pictures)
        found = {
            "mean": mean.half(),
            "deviation": deviation.half(),
            "attributes": torch.from_numpy(scenes.attributes.table()),
            "boxes": torch.from_numpy(scenes.boxes),
        }
        temporary = path.with_suffix(".tmp")
        torch.save(found, temporary)
        temporary.replace(path)
    loaded: dict[str, Tensor] = torch.load(path, weights_only=True)
    return loaded


def latent_set(
    vae: AutoencoderKL, parts: int = PARTS, n: int = 2000, hollow: bool = False
) -> dict[str, Tensor]:
    """The whole training set: ``parts`` times ``n`` pictures of seen pairs, see `latent_part`.

    ``often`` holds each row's number once, and twice where its shape is hard to draw.
    """
    for part in range(rank(), parts, world()):
        latent_part(vae, part, n, hollow)
    wait()
    found = [latent_part(vae, part, n, hollow) for part in range(parts)]
    data = {key: torch.cat([part[key] for part in found]) for key in found[0]}
    rows, shapes = torch.arange(len(data["mean"])), data["attributes"][:, 0]
    hard = torch.isin(shapes, torch.tensor([SHAPES.index(name) for name in _HARD]))
    return data | {"often": torch.cat([rows, rows[hard]])}


def object_weight(boxes: Tensor) -> Tensor:
    """Loss weights [n, 1, 16, 16]: 1, and more in an object's square.

    A smaller object weighs more, so that its square counts about as much as a big one's.
    """
    cell = SIDE / 16
    axis = (torch.arange(16) + 0.5) * cell
    near_x = (axis[None, :] - boxes[:, 0:1]).abs() < boxes[:, 2:3]
    near_y = (axis[None, :] - boxes[:, 1:2]).abs() < boxes[:, 2:3]
    mask = near_y[:, :, None] & near_x[:, None, :]
    gain = 1.5 * (_BIG_REACH / boxes[:, 2]).square().clamp(max=3.0)
    return 1 + gain.view(-1, 1, 1, 1) * mask[:, None].float()


def draw_times(count: int) -> Tensor:
    """Timesteps int64 [count]: half of 120 to 499, where shapes are won or lost, half of all.

    One draw in each of ``count`` equal intervals varies less from batch to batch than free draws.
    """
    even = (torch.randperm(count) + torch.rand(count)) / count
    shaping = 120 + even * 380
    return torch.where(torch.rand(count) < 0.5, shaping, even * 1000).long().clamp(max=999)


def draw_rows(rng: np.random.Generator, data: dict[str, Tensor], count: int) -> Tensor:
    """Row numbers int64 [count]: stars and squares twice as often as other shapes.

    Their corners are what a small UNet learns last.
    """
    often = data["often"].numpy()
    return torch.from_numpy(often[rng.integers(len(often), size=count)])


def sample_latents(data: dict[str, Tensor], rows: Tensor) -> Tensor:
    """Latents [n, 4, 16, 16] drawn from the autoencoder's distributions of these rows."""
    mean, deviation = data["mean"][rows].float(), data["deviation"][rows].float()
    return (mean + deviation * torch.randn_like(mean)).to(device())
