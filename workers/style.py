"""Ordinary LoRA training of a style on a Stable-Diffusion-like base, as any user would do it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from workers.distill import Batch
from workers.distill_curve import Curve
from workers.lora import lora_config

STYLE = "style"

STYLE_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "time_emb_proj")
"""Module names that carry the style: attention and the residual blocks."""


@dataclass(frozen=True)
class StyleSettings:
    """How to train a style."""

    rank: int = 8
    alpha: int = 8
    learning_rate: float = 2e-3
    steps: int = 300
    targets: tuple[str, ...] = STYLE_TARGETS
    seed: int = 0


def train_style(
    unet: Any,
    scheduler: Any,
    batches: Callable[[int], Batch],
    settings: StyleSettings,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Add the adapter `STYLE` to ``unet`` and train it by the base's own denoising loss.

    ``batches(step)`` gives latents in the style with their captions. Timesteps are uniform.
    """
    curve = Curve.of(scheduler)
    unet.requires_grad_(False)
    torch.manual_seed(settings.seed)
    config = lora_config(settings.rank, settings.alpha, settings.targets)
    unet.add_adapter(config, adapter_name=STYLE)
    unet.train()
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    for step in range(settings.steps):
        batch = batches(step)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        times = torch.randint(curve.length, (len(batch.latents),), generator=generator)
        times = times.to(batch.latents.device)
        noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
        noisy = curve.add_noise(batch.latents, noise, times)
        made = unet(noisy, times, batch.states, **(batch.extra or {})).sample
        error = (made - curve.aim(batch.latents, noise, times)).square()
        loss = (error if batch.weight is None else error * batch.weight).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if report is not None:
            report(step, float(loss.detach()))
