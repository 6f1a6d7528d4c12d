"""The teacher: the tiny model's UNet, its latents, its training, and its pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel

from workers.distill_curve import Curve
from workers.tiny import cache_dir
from workers.tiny.captions import Attributes, captions, draw_attributes, mistake
from workers.tiny.checkpoints import Run, device, placed, rank, wait, world
from workers.tiny.classifier import to_tensor
from workers.tiny.scenes import SIDE, render
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
    vae: AutoencoderKL, parts: int = 14, n: int = 2000, hollow: bool = False
) -> dict[str, Tensor]:
    """The whole training set: ``parts`` times ``n`` pictures of seen pairs."""
    for part in range(rank(), parts, world()):
        latent_part(vae, part, n, hollow)
    wait()
    found = [latent_part(vae, part, n, hollow) for part in range(parts)]
    return {key: torch.cat([part[key] for part in found]) for key in found[0]}


def object_weight(boxes: Tensor, inside: float = 2.0) -> Tensor:
    """Loss weights [n, 1, 16, 16]: ``inside`` an object's square and 1 elsewhere."""
    cell = SIDE / 16
    axis = (torch.arange(16) + 0.5) * cell
    near_x = (axis[None, :] - boxes[:, 0:1]).abs() < boxes[:, 2:3]
    near_y = (axis[None, :] - boxes[:, 1:2]).abs() < boxes[:, 2:3]
    mask = near_y[:, :, None] & near_x[:, None, :]
    return 1 + (inside - 1) * mask[:, None].float()


def sample_latents(data: dict[str, Tensor], rows: Tensor) -> Tensor:
    """Latents [n, 4, 16, 16] drawn from the autoencoder's distributions of these rows."""
    mean, deviation = data["mean"][rows].float(), data["deviation"][rows].float()
    return (mean + deviation * torch.randn_like(mean)).to(device())


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
) -> UNet2DConditionModel:
    """Train the UNet on cached latents; ``look(unet, run)`` is called now and then to judge it.

    Without a checkpoint it begins from nothing, or from ``start``.
    """
    torch.manual_seed(5)
    data, curve = latent_set(vae), Curve.of(build_scheduler())
    captioner = Captioner(encoder, MISTAKES, DROPPED)
    unet = build_unet()
    if start is not None:
        unet.load_state_dict(start.state_dict())
    placed(unet)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01)
    count = _BATCH // world()
    run = Run("teacher", {"unet": unet}, optimiser, minutes, decay=0.998)
    rng = np.random.default_rng([5, run.step, rank()])
    torch.manual_seed(500 + rank() + run.step)
    recent: list[float] = []
    while not run.done:
        rows = torch.from_numpy(rng.integers(len(data["mean"]), size=count))
        clean = sample_latents(data, rows)
        embedded = captioner.draw(rng, data["attributes"][rows].numpy())
        late = torch.randint(200, 1000, (count,))
        times = torch.where(torch.rand(count) < 0.8, late, torch.randint(0, 1000, (count,)))
        times = times.to(device())
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
        if look is not None and rank() == 0 and run.step % 400 == 0:
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
        for module in half.values():
            module.float()


def _modules(pipeline: StableDiffusionPipeline) -> dict[str, torch.nn.Module]:
    return {"vae": pipeline.vae, "unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
