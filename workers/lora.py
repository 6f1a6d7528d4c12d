"""LoRAs as they are trained here: which modules carry one, and the file that diffusers loads."""

import json
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

LORA_TARGETS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
    "conv1",
    "conv2",
    "conv_shortcut",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
)
"""Module names that carry the LoRA: those of the published LCM-LoRAs."""


def lora_config(rank: int, alpha: int, targets: tuple[str, ...] = LORA_TARGETS) -> LoraConfig:
    """A LoRA on ``targets`` that starts as no change."""
    return LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=True
    )


def save_lora(unet: Any, adapter: str, folder: Path, strength: float = 1.0) -> Path:
    """Write `WEIGHTS_FILE` in fp16 with rank and alpha in its metadata.

    ``strength`` is multiplied into the weights, so that weight 1.0 means it for every reader.
    """
    layers = get_peft_model_state_dict(unet, adapter_name=adapter)
    layers = {
        key: value.detach() * (strength if ".lora_B." in key else 1.0)
        for key, value in layers.items()
    }
    config = unet.peft_config[adapter].to_dict()
    metadata = json.loads(json.dumps(config, default=lambda value: sorted(value)))
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers={key: value.half() for key, value in layers.items()},
        unet_lora_adapter_metadata=metadata,
        safe_serialization=True,
    )
    return Path(folder) / WEIGHTS_FILE
