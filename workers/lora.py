"""LoRAs as they are trained here: which modules carry one, and the file that diffusers loads."""

import json
from pathlib import Path
from typing import Any, get_args

from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from jobs.distillation import LoraTarget

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

LORA_TARGETS: tuple[str, ...] = get_args(LoraTarget)
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
