"""The embedded model: a tiny latent diffusion model with its LCM-LoRA and one style LoRA.

Importing this package costs nothing (no torch): it only says where the weights lie.
"""

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parent

MODEL_DIR = _HERE / "model"
"""Folder of the base model, in the layout of diffusers' ``StableDiffusionPipeline``."""

LCM_LORA_DIR = _HERE / "lcm_lora"
"""Folder of the accelerator: ``pytorch_lora_weights.safetensors``, distilled from the base."""

OUTLINE_LORA_DIR = _HERE / "outline_lora"
"""Folder of the style: ``pytorch_lora_weights.safetensors``, objects drawn as outlines."""


JUDGE_DIR = _HERE / "judge"
"""Folder of the judge, which reads off a picture what it shows: ``judge.safetensors``."""


def made(part: str) -> Path:
    """Where training puts ``model``, ``judge`` and the LoRAs, and measuring finds them.

    A folder in ``FEWSTEP_TINY_OUT``; without it the package, so that what is made is shipped.
    """
    return Path(os.environ.get("FEWSTEP_TINY_OUT", _HERE)) / part


def cache_dir() -> Path:
    """Folder of checkpoints, logs and caches of training: ``FEWSTEP_TINY_CACHE`` or the default."""
    return Path(os.environ.get("FEWSTEP_TINY_CACHE", ".cache/tiny"))
