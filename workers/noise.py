"""The noise of an image: all of it from its own seed, drawn before the loop."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

#: Channels, height and width of a latent.
Shape = tuple[int, int, int]
#: Images whose noise may wait to be used: more were asked for and dropped.
KEPT = 512


def draw_noise(seeds: Sequence[int], shape: Shape, draws: int) -> torch.Tensor:
    """Noise `[draws, len(seeds), *shape]`, float32 on the CPU.

    Each seed has a fresh CPU generator and draws in the order of a diffusers pipeline: the
    initial latent, then one re-noising a step. So neighbours, batch position, worker and GPU kind
    do not touch it, and plain diffusers with `generator=torch.Generator().manual_seed(seed)`
    repeats it.
    """
    return torch.stack([_one(seed, shape, draws) for seed in seeds], dim=1)


def _one(seed: int, shape: Shape, draws: int) -> torch.Tensor:
    noise = torch.empty((draws, *shape))
    generator = torch.Generator("cpu").manual_seed(seed)
    for draw in range(draws):
        noise[draw] = torch.randn((1, *shape), generator=generator)[0]
    return noise


class NoiseAhead:
    """Draws the noise of coming images on a thread of its own, while the device works."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "noise")
        self._drawn: dict[tuple[int, Shape, int], Future[torch.Tensor]] = {}

    def draw(self, seeds: Sequence[int], shape: Shape, draws: int) -> None:
        """Begin to draw what `take` will be asked for; once, however often it is called."""
        for seed in seeds:
            key = (seed, shape, draws)
            if key not in self._drawn:
                self._drawn[key] = self._thread.submit(_one, *key)
        while len(self._drawn) > KEPT:
            self._drawn.pop(next(iter(self._drawn))).cancel()

    def take(self, seeds: Sequence[int], shape: Shape, draws: int) -> torch.Tensor:
        """The same as `draw_noise`, sooner where it was drawn ahead."""
        drawn = [self._drawn.pop((seed, shape, draws), None) for seed in seeds]
        return torch.stack(
            [
                _one(seed, shape, draws) if ahead is None else ahead.result()
                for seed, ahead in zip(seeds, drawn, strict=True)
            ],
            dim=1,
        )
