"""The tiny model's trained parts, read from their checkpoints or from the shipped folder."""

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from workers.tiny import cache_dir
from workers.tiny.autoencoder import build_autoencoder, whiten
from workers.tiny.checkpoints import device, placed
from workers.tiny.teacher import build_unet
from workers.tiny.text import build_text_encoder
from workers.tiny.tokenizer import build_tokenizer


def _averaged(module: Any, run: str, key: str) -> Any:
    state = torch.load(cache_dir() / f"{run}.pt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["averages"][key])
    return module.eval().requires_grad_(False)


def trained_autoencoder() -> AutoencoderKL:
    """The autoencoder of its checkpoint, with standard latents."""
    vae: AutoencoderKL = _averaged(build_autoencoder(), "autoencoder", "vae")
    placed(vae)
    whiten(vae)
    return vae


def trained_text_encoder() -> CLIPTextModel:
    """The text encoder of its checkpoint."""
    encoder: CLIPTextModel = _averaged(build_text_encoder(build_tokenizer()), "text", "encoder")
    return encoder.to(device())


def trained_unet() -> UNet2DConditionModel:
    """The teacher's UNet, averaged, of its checkpoint."""
    unet: UNet2DConditionModel = _averaged(build_unet(), "teacher", "unet")
    return placed(unet)
