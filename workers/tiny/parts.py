"""The tiny model's trained parts, read from their checkpoints or from the shipped folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from workers.tiny import MODEL_DIR, cache_dir
from workers.tiny.autoencoder import build_autoencoder, whiten
from workers.tiny.checkpoints import device, placed
from workers.tiny.teacher import build_unet
from workers.tiny.text import build_text_encoder
from workers.tiny.tokenizer import build_tokenizer


def _averaged(module: Any, run: str, key: str) -> Any:
    state = torch.load(_checkpoint(run), map_location="cpu", weights_only=True)
    module.load_state_dict(state["averages"][key])
    return module.eval().requires_grad_(False)


def _checkpoint(run: str) -> Path:
    return cache_dir() / f"{run}.pt"


def shipped(kind: Any, folder: str) -> Any:
    """A part of the shipped model, in float32: where its checkpoint is gone, training goes on."""
    part = kind.from_pretrained(MODEL_DIR / folder, dtype=torch.float32, local_files_only=True)
    return part.eval().requires_grad_(False)


def trained_autoencoder() -> AutoencoderKL:
    """The autoencoder of its checkpoint, with standard latents; without one, the shipped.

    Its decoder is the finished one of `decoder.py`, where that has been trained.
    """
    vae = plain_autoencoder()
    if _checkpoint("decoder").exists():
        _averaged(vae.decoder, "decoder", "decoder")
        _averaged(vae.post_quant_conv, "decoder", "post")
    return vae


def plain_autoencoder() -> AutoencoderKL:
    """The same with the decoder that was trained along with the encoder."""
    if not _checkpoint("autoencoder").exists():
        # What is shipped has standard latents already.
        return placed(shipped(AutoencoderKL, "vae"))
    vae: AutoencoderKL = _averaged(build_autoencoder(), "autoencoder", "vae")
    placed(vae)
    whiten(vae)
    return vae


def trained_text_encoder() -> CLIPTextModel:
    """The text encoder of its checkpoint; without one, the shipped."""
    if not _checkpoint("text").exists():
        return shipped(CLIPTextModel, "text_encoder").to(device())
    encoder: CLIPTextModel = _averaged(build_text_encoder(build_tokenizer()), "text", "encoder")
    return encoder.to(device())


def trained_unet() -> UNet2DConditionModel:
    """The teacher's UNet, averaged, of its checkpoint."""
    unet: UNet2DConditionModel = _averaged(build_unet(), "teacher", "unet")
    return placed(unet)
