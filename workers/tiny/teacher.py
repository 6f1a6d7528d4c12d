"""The teacher: the tiny model's UNet, its latents, its training, and its pipeline."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel

from workers.distill_curve import Curve
from workers.tiny.captions import Attributes, captions, mistake
from workers.tiny.checkpoints import Run, device, placed, rank, world
from workers.tiny.latents import (
    PARTS,
    draw_rows,
    draw_times,
    latent_set,
    object_weight,
    sample_latents,
)
from workers.tiny.text import WIDTH, tokens
from workers.tiny.tokenizer import build_tokenizer

MISTAKES = 0.12
"""Share of training captions that are wrong in one attribute, as captions from the web are."""

DROPPED = 0.10
"""Share of training captions replaced by the empty one, for classifier-free guidance."""

_BATCH = 64


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, rescaled to end in pure noise; v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def build_unet() -> UNet2DConditionModel:
    """An untrained UNet of 2.5 million parameters.

    The caption comes in twice: pooled, beside the timestep (``addition_embed_type="text"``), and
    by cross-attention at 8x8 and 4x4.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        cross_attention_dim=WIDTH,
        attention_head_dim=(3, 4, 6),
        norm_num_groups=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=192,
    )


class Captioner:
    """Draws training captions and embeds them with the frozen text encoder."""

    def __init__(self, encoder: CLIPTextModel, mistakes: float, dropped: float) -> None:
        self.encoder, self.mistakes, self.dropped = encoder, mistakes, dropped
        self.tokenizer = build_tokenizer()

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """Hidden states [n, LENGTH, WIDTH] of the texts."""
        states: Tensor = self.encoder(tokens(self.tokenizer, texts).to(device())).last_hidden_state
        return states

    def draw(self, rng: np.random.Generator, attributes: NDArray[np.int64]) -> Tensor:
        """Embedded captions for attribute rows [n, 5], some wrong, some empty."""
        told = mistake(rng, Attributes.of(attributes), self.mistakes)
        texts, _ = captions(rng, told)
        empty = rng.random(len(texts)) < self.dropped
        return self.embed([text if keep else "" for text, keep in zip(texts, ~empty, strict=True)])


def train_teacher(
    vae: AutoencoderKL,
    encoder: CLIPTextModel,
    minutes: float = 60.0,
    look: Any = None,
    start: UNet2DConditionModel | None = None,
    parts: int = PARTS,
) -> UNet2DConditionModel:
    """Train the UNet on cached latents; ``look(unet, run)`` is called now and then to judge it.

    Without a checkpoint it begins from nothing, or from ``start``.
    """
    torch.manual_seed(5)
    data, curve = latent_set(vae, parts), Curve.of(build_scheduler())
    captioner = Captioner(encoder, MISTAKES, DROPPED)
    unet = build_unet()
    if start is not None:
        unet.load_state_dict(start.state_dict())
    placed(unet)
    rate = 2e-3 if start is None else 1.2e-3
    optimiser = torch.optim.AdamW(
        unet.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    count = _BATCH // world()
    run = Run("teacher", {"unet": unet}, optimiser, minutes, decay=0.998)
    rng = np.random.default_rng([5, run.step, rank()])
    torch.manual_seed(500 + rank() + run.step)
    recent: list[float] = []
    while not run.done:
        rows = draw_rows(rng, data, count)
        clean = sample_latents(data, rows)
        embedded = captioner.draw(rng, data["attributes"][rows].numpy())
        times = draw_times(count).to(device())
        noise = torch.randn_like(clean)
        noisy = curve.add_noise(clean, noise, times)
        made = unet(noisy, times, embedded).sample
        error = (made - curve.velocity(clean, noise, times)).square()
        loss = (error * object_weight(data["boxes"][rows]).to(error)).mean()
        run.update(loss)
        recent.append(loss.item())
        if run.step % 50 == 0:
            run.log(loss=round(float(np.mean(recent)), 4))
            recent.clear()
        if look is not None and rank() == 0 and run.step % 500 == 0:
            look(run)
            run.rest()
    trained: UNet2DConditionModel = run.averaged("unet")
    return trained


def build_pipeline(
    vae: AutoencoderKL, encoder: CLIPTextModel, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The parts as a plain diffusers pipeline."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=build_tokenizer(),
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the standard folder in half precision; each file appears whole."""
    from workers.tiny.shipping import swap_folder

    with swap_folder(folder) as fresh:
        half = {key: value.half() for key, value in _modules(pipeline).items()}
        pipeline.save_pretrained(fresh, safe_serialization=True)
        _forget_origin(fresh / "vae" / "config.json")
        for module in half.values():
            module.float()


def _forget_origin(config: Path) -> None:
    """diffusers writes down from which folder a part was loaded; that is this machine's matter."""
    told = json.loads(config.read_text())
    told.pop("_name_or_path", None)
    config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def _modules(pipeline: StableDiffusionPipeline) -> dict[str, torch.nn.Module]:
    return {"vae": pipeline.vae, "unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
