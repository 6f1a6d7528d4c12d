"""Latents into pixels: the autoencoder in parts, and a verdict on each picture."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from workers.device_faults import DeviceLost
from workers.engine import Engine

#: Pixels decoded at once: a VAE's full-resolution maps are the peak of a batch's memory.
DECODE_PIXELS = 4 * 1024 * 1024

#: Verdicts on a picture, as the device gives them.
GOOD, NOT_NUMBERS, ONE_COLOUR = 0, 1, 2


class Decoder:
    """Decodes with an engine's autoencoder. Nothing here waits for the device."""

    def __init__(
        self,
        engine: Engine,
        moved: Callable[[], None],
        decode: Callable[..., Any] | None = None,
    ) -> None:
        """`decode` stands in for the autoencoder's own (compiled, for example)."""
        self._engine = engine
        self._moved = moved
        self._decode = decode

    def pixels(
        self, latents: torch.Tensor, *, exactly: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels `[n, height, width, 3]` uint8 and verdicts `[n]` uint8, on the device.

        `exactly`: in float32, because half precision overflows in some autoencoders.
        """
        step = decode_batch(latents, self._engine.latent_factor)
        with in_float32(self._engine.vae) if exactly else nullcontext():
            parts = [self._some(part, exactly) for part in latents.split(step)]
        pixels, verdicts = zip(*parts, strict=True)
        return torch.cat(pixels), torch.cat(verdicts)

    def _some(self, latents: torch.Tensor, exactly: bool) -> tuple[torch.Tensor, torch.Tensor]:
        vae = self._engine.vae
        # Looked up at each call: what is compiled knows one dtype.
        decode = vae.decode if exactly or self._decode is None else self._decode
        scaled = latents.to(vae.dtype) / vae.config.scaling_factor
        decoded: torch.Tensor = decode(scaled, return_dict=False)[0].float()
        self._moved()
        finite = torch.isfinite(decoded).flatten(1).all(1)
        unit = (decoded / 2 + 0.5).clamp(0, 1)
        pixels = unit.mul(255).round().nan_to_num().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        flat = pixels.flatten(1)
        same = flat.amin(1) == flat.amax(1)
        verdicts = torch.where(finite, torch.where(same, ONE_COLOUR, GOOD), NOT_NUMBERS)
        return pixels, verdicts.to(torch.uint8)


@contextmanager
def in_float32(net: Any) -> Iterator[None]:
    """`net` in float32 meanwhile; going back rounds nothing, because nothing was added.

    Raises DeviceLost where the way back fails: no later batch could use a net of mixed dtypes.
    """
    before = net.dtype
    try:
        # Inside: where memory runs out half-way, some parameters have moved already.
        net.to(torch.float32)
        yield
    finally:
        _back(net, before)


def _back(net: Any, dtype: torch.dtype) -> None:
    try:
        net.to(dtype)
    except RuntimeError as error:
        raise DeviceLost(f"a net did not go back to {dtype}: {error}"[:300]) from error


def decode_batch(latents: torch.Tensor, factor: int) -> int:
    """Images decoded at once: the largest divisor of the batch within `DECODE_PIXELS`."""
    count, _, height, width = latents.shape
    limit = max(1, DECODE_PIXELS // (height * width * factor * factor))
    return max(part for part in range(1, count + 1) if count % part == 0 and part <= limit)
