"""The noise of an image: all of it from its own seed, drawn before the loop."""

from collections.abc import Sequence

import torch


def draw_noise(seeds: Sequence[int], shape: tuple[int, int, int], draws: int) -> torch.Tensor:
    """Noise `[draws, len(seeds), *shape]`, float32 on the CPU.

    Each seed has a fresh CPU generator and draws in the order of a diffusers pipeline: the
    initial latent, then one re-noising a step. So neighbours, batch position, worker and GPU kind
    do not touch it, and plain diffusers with `generator=torch.Generator().manual_seed(seed)`
    repeats it.
    """
    noise = torch.empty((draws, len(seeds), *shape))
    for position, seed in enumerate(seeds):
        generator = torch.Generator("cpu").manual_seed(seed)
        for draw in range(draws):
            noise[draw, position] = torch.randn((1, *shape), generator=generator)[0]
    return noise
