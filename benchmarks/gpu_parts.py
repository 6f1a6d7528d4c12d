"""Each part of a picture's way on the device, alone: text, UNet, decoder, transfer, file."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.nets import TOKENS, Architecture
from workers.encode import encode

#: What one measurement may take, and how often at least.
PART_S, LEAST = 1.0, 3
SETTINGS: dict[str, object] = {
    "prompt": "a big red circle on the left",
    "negative_prompt": "",
    "seed": 7,
    "sampler": "lcm",
    "steps": 4,
    "guidance": 1.0,
    "width": 0,
    "height": 0,
    "model": "random",
    "generator": "fewstep",
}


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_ms(device: torch.device, call: Callable[[], object], seconds: float = PART_S) -> float:
    """Median milliseconds of `call()` and the device's end of it, after one that warms up."""
    call()
    settle(device)
    times: list[float] = []
    while len(times) < LEAST or (sum(times) < seconds * 1e3 and len(times) < 100):
        started = time.perf_counter()
        call()
        settle(device)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def matrix_tflops(device: torch.device, dtype: torch.dtype, edge: int) -> float:
    """What the device reaches in a large matrix product, in tera operations a second."""
    one = torch.randn((edge, edge), device=device, dtype=dtype)
    other = torch.randn((edge, edge), device=device, dtype=dtype)
    spent = median_ms(device, lambda: one @ other)
    return 2 * edge**3 / (spent / 1e3) / 1e12


@dataclass(frozen=True)
class Parts:
    """Milliseconds of each part of `pipeline`; all of a batch unless its name says else."""

    architecture: Architecture
    pipeline: Any
    device: torch.device
    dtype: torch.dtype

    @torch.inference_mode()
    def text_ms(self) -> float:
        """A batch of prompts through the text encoders."""
        prompts = [f"a red circle, {number}" for number in range(self.architecture.batch)]
        return median_ms(
            self.device,
            lambda: self.pipeline.encode_prompt(
                prompts,
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            ),
        )

    @torch.inference_mode()
    def unet_ms(self) -> float:
        """One UNet call of a batch."""
        unet, batch = self.pipeline.unet, self.architecture.batch
        latents = self._latents(batch).to(self.dtype)
        timestep = torch.tensor(500, device=self.device)
        states = self._random(batch, TOKENS, unet.config.cross_attention_dim)
        added = None
        if self.architecture.family == "sdxl":
            pooled = self.pipeline.text_encoder_2.config.projection_dim
            added = {"text_embeds": self._random(batch, pooled), "time_ids": self._random(batch, 6)}
        return median_ms(
            self.device,
            lambda: unet(
                latents,
                timestep,
                encoder_hidden_states=states,
                added_cond_kwargs=added,
                return_dict=False,
            ),
        )

    @torch.inference_mode()
    def decode_ms(self, micro: int, dtype: torch.dtype) -> float:
        """A picture through the decoder, `micro` of them at once, in `dtype`."""
        vae = self.pipeline.vae
        before = vae.dtype
        vae.to(dtype)
        try:
            latents = self._latents(micro).to(dtype)
            spent = median_ms(self.device, lambda: vae.decode(latents, return_dict=False))
        finally:
            vae.to(before)
        return spent / micro

    def transfer_ms(self) -> float:
        """A batch of finished uint8 pictures to pinned memory of the host."""
        edge, batch = self.architecture.pixels, self.architecture.batch
        pictures = torch.zeros((batch, edge, edge, 3), dtype=torch.uint8, device=self.device)
        pinned = self.device.type == "cuda"
        host = torch.empty(pictures.shape, dtype=torch.uint8, pin_memory=pinned)
        return median_ms(self.device, lambda: host.copy_(pictures, non_blocking=True))

    def encode_ms(self, form: Any) -> float:
        """One picture into a file, on one thread: noise over a slope, which compresses badly."""
        edge = self.architecture.pixels
        random = np.random.default_rng(1)
        slope = np.linspace(0, 200, edge, dtype=np.float32)[:, None, None]
        grain = random.integers(0, 24, (edge, edge, 3))
        picture = (slope + grain).astype(np.uint8)
        return median_ms(
            torch.device("cpu"), lambda: encode(picture, form, 95, SETTINGS), seconds=0.3
        )

    def _latents(self, count: int) -> torch.Tensor:
        edge = self.architecture.pixels // 8
        shape = (count, 4, edge, edge)
        return torch.randn(shape, device=self.device).contiguous(memory_format=torch.channels_last)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype)
