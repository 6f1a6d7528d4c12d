"""A narrow Stable Diffusion 1.5 as one file in the layout of its first release.

The names are those that diffusers' `from_single_file` reads; this is its mapping backwards.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def write_single_file(pipeline: Path, file: Path) -> None:
    """Write the nets of a pipeline's folder into one safetensors file."""
    unet = load_file(pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(pipeline / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(pipeline / "text_encoder" / "model.safetensors")
    found = {f"model.diffusion_model.{_unet(name)}": one for name, one in unet.items()}
    found |= {f"first_stage_model.{_vae(name)}": _square(name, one) for name, one in vae.items()}
    prefix = "cond_stage_model.transformer."
    found |= {f"{prefix}{_text(name)}": one for name, one in text.items()}
    save_file({name: one.contiguous() for name, one in found.items()}, file)


def _text(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _unet(name: str) -> str:
    for ours, theirs in _TOP.items():
        if name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    parts = name.split(".")
    if parts[0] == "mid_block":
        place = {"attentions": 1, "resnets": 2 * int(parts[2])}[parts[1]]
        return f"middle_block.{place}.{_inner(parts[1], parts[3:])}"
    block, kind, index = int(parts[1]), parts[2], int(parts[3])
    down = parts[0] == "down_blocks"
    if kind == "downsamplers":
        return f"input_blocks.{3 * (block + 1)}.0.op.{parts[-1]}"
    if kind == "upsamplers":
        # The first block up has no attention, so that its upsampler comes one place earlier.
        return f"output_blocks.{3 * block + 2}.{1 if block == 0 else 2}.conv.{parts[-1]}"
    number = 3 * block + index + 1 if down else 3 * block + index
    place = 1 if kind == "attentions" else 0
    side = "input_blocks" if down else "output_blocks"
    return f"{side}.{number}.{place}.{_inner(kind, parts[4:])}"


def _inner(kind: str, rest: list[str]) -> str:
    if kind == "resnets":
        return f"{_RESNET[rest[0]]}.{rest[1]}"
    return ".".join(rest)


def _vae(name: str) -> str:
    parts = name.split(".")
    if parts[1] == "mid_block":
        rest = ".".join(parts[4:])
        if parts[2] == "resnets":
            return f"{parts[0]}.mid.block_{int(parts[3]) + 1}.{_shortcut(rest)}"
        for ours, theirs in _ATTENTION.items():
            if rest.startswith(f"{ours}."):
                return f"{parts[0]}.mid.attn_1.{theirs}{rest[len(ours) :]}"
    if parts[1] in ("down_blocks", "up_blocks"):
        side = parts[1].removesuffix("_blocks")
        block = int(parts[2]) if side == "down" else 2 - int(parts[2])
        if parts[3] == "resnets":
            return f"{parts[0]}.{side}.{block}.block.{parts[4]}.{_shortcut('.'.join(parts[5:]))}"
        return f"{parts[0]}.{side}.{block}.{side}sample.conv.{parts[-1]}"
    return name.replace("conv_norm_out", "norm_out")


def _shortcut(name: str) -> str:
    return name.replace("conv_shortcut", "nin_shortcut")


def _square(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Attention was made of 1x1 convolutions then."""
    is_matrix = ".attentions." in name and name.endswith("weight") and tensor.ndim == 2
    return tensor[:, :, None, None] if is_matrix else tensor
