"""The tiny model's two LoRAs: the distilled accelerator and the outline style."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from workers.distill import Batch, Distiller, DistillSettings
from workers.lora import save_lora
from workers.style import STYLE, StyleSettings, train_style
from workers.tiny import cache_dir, made
from workers.tiny.checkpoints import device, rank, save_state, share_gradients, world
from workers.tiny.latents import PARTS, draw_rows, latent_set, object_weight, sample_latents
from workers.tiny.parts import trained_autoencoder, trained_text_encoder, trained_unet
from workers.tiny.shipping import swap_folder
from workers.tiny.teacher import Captioner, build_scheduler

_BATCH = 32
_SAVE_EVERY = 50

LCM_SETTINGS = DistillSettings(learning_rate=5e-4, w_min=2.0, w_max=2.0, w_fall=0.5)
"""How the shipped accelerator was distilled: w = 2 is the teacher's guidance scale 3.

It falls to 1 at the path's end: baked in by every step at full w, guidance makes colours drift.
"""

OUTLINE_SETTINGS = StyleSettings()
"""How the shipped style was trained."""


def _batches(
    data: dict[str, torch.Tensor], captioner: Captioner, salt: int, count: int
) -> Callable[[int], Batch]:
    """Batch number ``step``, the same whenever it is asked for."""
    empty = captioner.embed([""])

    def draw(step: int) -> Batch:
        rng = np.random.default_rng([salt, step, rank()])
        rows = draw_rows(rng, data, count)
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            latents = sample_latents(data, rows)
        states = captioner.draw(rng, data["attributes"][rows].numpy())
        weight = object_weight(data["boxes"][rows]).to(latents)
        latents = latents.contiguous(memory_format=torch.channels_last)
        return Batch(latents, states, empty.expand_as(states), weight=weight)

    return draw


def distil_lcm(
    settings: DistillSettings,
    minutes: float,
    look: Callable[[Distiller], None] | None = None,
    start: Path | None = None,
    parts: int = PARTS,
) -> None:
    """Distil the accelerator, resuming where it stopped, and put it in place.

    Without a checkpoint it begins from nothing, or from the LoRA in the folder ``start``.
    """
    vae, captioner = trained_autoencoder(), Captioner(trained_text_encoder(), 0.0, 0.0)
    batches = _batches(latent_set(vae, parts), captioner, 6, _BATCH // world())
    distiller = Distiller(
        trained_unet(), build_scheduler(), settings, share=share_gradients, rank=rank()
    )
    path, spent_s = cache_dir() / "lcm.pt", 0.0
    if path.exists():
        state = torch.load(path, map_location=device(), weights_only=True)
        distiller.load_state(state)
        spent_s = float(state["spent_s"])
    elif start is not None:
        distiller.begin_from(start)
    recent: list[float] = []
    while spent_s < minutes * 60:
        begun = time.monotonic()
        progress = spent_s / (minutes * 60)
        recent.append(distiller.step(batches(distiller.steps_done), progress))
        spent_s = share_gradients([], spent_s + time.monotonic() - begun)
        last = spent_s >= minutes * 60
        if rank() == 0 and (last or distiller.steps_done % _SAVE_EVERY == 0):
            _report("lcm", distiller.steps_done, float(np.mean(recent)))
            recent.clear()
            save_state(distiller.state() | {"spent_s": spent_s}, path)
            if look is not None:
                look(distiller)
    if rank() == 0:
        with swap_folder(made("lcm_lora")) as fresh:
            distiller.save(fresh)


def train_outline(settings: StyleSettings) -> None:
    """Train the outline style on hollow pictures and put it in place."""
    vae, captioner = trained_autoencoder(), Captioner(trained_text_encoder(), 0.0, 0.1)
    data = latent_set(vae, parts=2, n=2000, hollow=True)
    batches = _batches(data, captioner, 8, 32)
    unet = trained_unet()

    def report(step: int, loss: float) -> None:
        if step % 50 == 49:
            _report("outline", step + 1, loss)

    train_style(unet, build_scheduler(), batches, settings, report)
    with swap_folder(made("outline_lora")) as fresh:
        save_lora(unet, STYLE, fresh)


def _report(run: str, step: int, loss: float) -> None:
    line = json.dumps({"run": run, "step": step, "loss": round(loss, 5)})
    print(line, flush=True)
    with (cache_dir() / f"{run}.log").open("a") as file:
        file.write(line + "\n")
