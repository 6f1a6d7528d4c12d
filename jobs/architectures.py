"""Architectures: a UNet is told apart by its configuration, never by its file's name."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from jobs.recipe import Dtype, Frozen

#: What decides the shapes of a UNet's weights, and diffusers' values where a configuration is
#: silent (`UNet2DConditionModel`). Anything else (dropout, sample size) fits the same adapters.
_SHAPE: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": [
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": [
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    ],
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1280,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
    "time_cond_proj_dim": None,
    "time_embedding_dim": None,
    "resnet_time_scale_shift": "default",
}


class Parameters(Frozen):
    """How many numbers each net holds."""

    unet: int
    #: All text encoders together.
    text: int
    vae: int

    @property
    def total(self) -> int:
        """Of the whole base."""
        return self.unet + self.text + self.vae


class ArchitectureEntry(Frozen):
    """A kind of base model: its pipeline, its UNet's configuration, and what it weighs."""

    title: str
    #: The diffusers pipeline: one text encoder, or SDXL's two with size conditioning.
    family: Literal["sd", "sdxl"]
    #: Precisions in which it is known to work.
    dtypes: tuple[Dtype, ...] = Field(min_length=1, strict=False)
    #: Among them, those in which an autoencoder that says `force_upcast` decodes in float32.
    vae_float32: tuple[Dtype, ...] = Field(default=(), strict=False)
    #: The UNet's configuration, as far as it differs from diffusers' defaults.
    unet: dict[str, Any]
    parameters: Parameters | None = None

    @property
    def configuration(self) -> dict[str, Any]:
        """The UNet's configuration as diffusers takes it: TOML has no null, so it says "none"."""
        return {name: None if value == "none" else value for name, value in self.unet.items()}

    @property
    def fingerprint(self) -> str:
        """Of its UNet's configuration."""
        return fingerprint(self.configuration)


def fingerprint(unet: Mapping[str, Any]) -> str:
    """Identity of a UNet's shape: equal for configurations that the same adapters fit.

    Lists and tuples, a value and its repetition for every block, and the depth of blocks without
    attention make no difference.
    """
    shape = {name: _plain(unet.get(name, default)) for name, default in _SHAPE.items()}
    shape["depths"] = _depths(unet)
    text = json.dumps(shape, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _depths(unet: Mapping[str, Any]) -> list[Any]:
    """Transformer layers of each block, down and then up; 0 where a block has no attention."""
    down = list(unet.get("down_block_types", _SHAPE["down_block_types"]))
    up = list(unet.get("up_block_types", _SHAPE["up_block_types"]))
    given = unet.get("transformer_layers_per_block", 1)
    deep = list(given) if isinstance(given, list | tuple) else [given] * len(down)
    back = unet.get("reverse_transformer_layers_per_block") or deep[::-1]
    pairs = [*zip(down, deep, strict=True), *zip(up, back, strict=True)]
    found = [_plain(depth) if "CrossAttn" in block else 0 for block, depth in pairs]
    # The middle block is as deep as the last one down, whether that has attention or not.
    middle = _plain(deep[-1]) if "CrossAttn" in str(unet.get("mid_block_type", "CrossAttn")) else 0
    return [*found, middle]


def _plain(value: Any) -> Any:
    """A tuple as a list, and a list of equal values as that value."""
    if not isinstance(value, list | tuple):
        return value
    items = [_plain(item) for item in value]
    return items[0] if items and all(item == items[0] for item in items) else items


def name_of(found: str, known: Mapping[str, ArchitectureEntry]) -> str:
    """The name of the architecture with this fingerprint; "" where none is known."""
    return next((name for name, entry in known.items() if entry.fingerprint == found), "")
