"""SD-1.5, SSD-1B and SDXL with their own blocks and depths, reduced in width, random weights.

Every module of the real architecture is there (278, 423 and 788 that an LCM-LoRA changes), only
narrower, so that adapters in both layouts find the places that they find in the real ones.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.accelerators import AcceleratorEntry
from jobs.architectures import ArchitectureEntry
from jobs.catalog import Catalog, load_catalog
from jobs.entries import ModelEntry, StyleEntry, VaeEntry
from jobs.recipe import Alpha
from workers import tiny

RANK = 4
#: Modules that an LCM-LoRA changes: those of `workers.lora.LORA_TARGETS`.
MODULES = {"sd15": 278, "ssd-1b": 423, "sdxl": 788}
WIDTH = 32

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


def narrow(entry: ArchitectureEntry) -> ArchitectureEntry:
    """The architecture with a tenth of its channels and text widths of `WIDTH`."""
    unet = {**entry.unet}
    wide = unet.get("block_out_channels", [320, 640, 1280, 1280])
    unet["block_out_channels"] = [channels // 10 for channels in wide]
    unet["cross_attention_dim"] = WIDTH if entry.family == "sd" else 2 * WIDTH
    if entry.family == "sdxl":
        unet["attention_head_dim"] = [2, 4, 8]
        unet["addition_time_embed_dim"] = 8
        unet["projection_class_embeddings_input_dim"] = 6 * 8 + WIDTH
    return entry.model_copy(update={"unet": unet, "parameters": None})


def save_base(folder: Path, entry: ArchitectureEntry, seed: int = 0) -> None:
    """Write a pipeline of the architecture into `folder`, in the layout of diffusers."""
    import diffusers
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    torch.manual_seed(seed)
    text = CLIPTextConfig.from_pretrained(tiny.MODEL_DIR / "text_encoder").to_dict()
    text |= {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "projection_dim": WIDTH}
    config = CLIPTextConfig(**{k: v for k, v in text.items() if k != "dtype"})
    tokenizer = CLIPTokenizer.from_pretrained(tiny.MODEL_DIR / "tokenizer")
    parts: dict[str, Any] = {
        "unet": diffusers.UNet2DConditionModel(**entry.configuration, sample_size=8),
        "vae": _vae(),
        "text_encoder": CLIPTextModel(config),
        "tokenizer": tokenizer,
    }
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    if entry.family == "sd":
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["scheduler"] = diffusers.PNDMScheduler(
            **schedule, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
        )
        pipeline = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    else:
        parts |= {"text_encoder_2": CLIPTextModelWithProjection(config), "tokenizer_2": tokenizer}
        parts["scheduler"] = diffusers.EulerDiscreteScheduler(
            **schedule, timestep_spacing="leading", steps_offset=1
        )
        pipeline = diffusers.StableDiffusionXLPipeline(**parts)
    pipeline.save_pretrained(folder)


def _vae(latent_channels: int = 4) -> Any:
    import diffusers

    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=latent_channels,
        sample_size=32,
        scaling_factor=0.13025,
    )


def save_vae(folder: Path, latent_channels: int = 4) -> None:
    """Write an autoencoder with other weights than the base's."""
    torch.manual_seed(99)
    _vae(latent_channels).save_pretrained(folder)


def random_pairs(unet: dict[str, torch.Tensor], targets: tuple[str, ...], seed: int) -> Pairs:
    """Module -> its two LoRA matrices `[rank, in]` and `[out, rank]`, for the UNet's weights."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for key, weight in unet.items():
        module = key.removesuffix(".weight")
        if key.endswith(".weight") and module.endswith(targets):
            rest = tuple(weight.shape[2:])
            down = torch.randn((RANK, weight.shape[1], *rest), generator=generator) * 0.1
            up = torch.randn((weight.shape[0], RANK, *[1] * len(rest)), generator=generator) * 0.1
            found[module] = (down, up)
    return found


def write_lora(file: Path, pairs: Pairs, layout: str, alpha: float | None = None) -> None:
    """Write a LoRA file in kohya's or diffusers' layout, with alpha where one is given."""
    tensors: dict[str, torch.Tensor] = {}
    for module, (down, up) in pairs.items():
        if layout == "kohya":
            name = f"lora_unet_{module.replace('.', '_')}"
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            if alpha is not None:
                tensors[f"{name}.alpha"] = torch.tensor(alpha)
        else:
            tensors |= {f"unet.{module}.lora_A.weight": down, f"unet.{module}.lora_B.weight": up}
    metadata = None
    if layout == "peft" and alpha is not None:
        told = {"r": RANK, "lora_alpha": alpha, "target_modules": sorted(pairs)}
        metadata = {
            "format": "pt",
            "lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in told.items()}),
        }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: one.contiguous() for name, one in tensors.items()}, file, metadata)


def delta(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """`B A` as the change of a weight of the module's own shape."""
    if down.ndim == 2:
        return up @ down
    if down.shape[2:] == (1, 1):
        return (up[:, :, 0, 0] @ down[:, :, 0, 0])[:, :, None, None]
    return torch.nn.functional.conv2d(down.transpose(0, 1), up).transpose(0, 1)


@dataclass
class SmallBase:
    """A narrow base on disk, and the catalog that knows it and what is written beside it."""

    name: str
    folder: Path
    entry: ArchitectureEntry
    accelerators: dict[str, AcceleratorEntry] = field(default_factory=dict)
    styles: dict[str, StyleEntry] = field(default_factory=dict)
    vaes: dict[str, VaeEntry] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def unet(self) -> dict[str, torch.Tensor]:
        """The UNet's weights as they were written."""
        return _weights(self.folder / "unet")

    def lora(self, name: str, pairs: Pairs, layout: str, alpha: float | None = None) -> Path:
        """Write an adapter beside the base; its file."""
        file = self.folder.parent / f"{name}.safetensors"
        write_lora(file, pairs, layout, alpha)
        return file

    def accelerate(self, name: str, file: Path, **fields: Any) -> None:
        """List an LCM accelerator."""
        self.accelerators[name] = AcceleratorEntry.model_validate(
            {**_source(file, self.name), "weight": 1.0, **_LCM, **fields}
        )

    def style(self, name: str, file: Path, alpha: Alpha = "file", **fields: Any) -> None:
        """List a style."""
        given = {**_source(file, self.name), "alpha": alpha, **fields}
        self.styles[name] = StyleEntry.model_validate(given)

    def autoencoder(self, folder: Path, **fields: Any) -> VaeEntry:
        """An entry for another autoencoder."""
        return VaeEntry.model_validate({**_source(folder, self.name), **fields})

    @property
    def catalog(self) -> Catalog:
        """The shipped catalog with this base in place of its models."""
        shipped = load_catalog()
        model = ModelEntry.model_validate(
            {
                "architecture": self.name,
                "source": f"path:{self.folder}",
                "licence": "unknown",
                **_MODEL,
                **self.model,
            }
        )
        return shipped.model_copy(
            update={
                "architectures": {**shipped.architectures, self.name: self.entry},
                "models": {"small": model},
                "accelerators": self.accelerators,
                "styles": self.styles,
                "vaes": self.vaes,
            }
        )


_LCM = {
    "sampler": "lcm",
    "steps_min": 1,
    "steps_max": 8,
    "steps": 2,
    "guidance_max": 2.0,
    "guidance": 1.0,
}
_MODEL = {
    "width": 32,
    "height": 32,
    "size_multiple": 16,
    "size_min": 32,
    "size_max": 64,
    "dtype": "float32",
    "batch_images": 2,
    "sampler": "ddim",
    "steps": 2,
    "guidance": 1.0,
}


def _source(file: Path, architecture: str) -> dict[str, Any]:
    return {"source": f"path:{file}", "architectures": (architecture,), "licence": "unknown"}


@cache
def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "diffusion_pytorch_model.safetensors"))


@pytest.fixture(scope="session", params=MODULES)
def small(request: pytest.FixtureRequest) -> SmallBase:
    """Each narrow architecture in turn."""
    return request.getfixturevalue(f"small_{request.param.replace('-', '_')}")


def _made(name: str, factory: pytest.TempPathFactory) -> Iterator[SmallBase]:
    entry = narrow(load_catalog().architectures[name])
    folder = factory.mktemp(name) / "base"
    save_base(folder, entry)
    yield SmallBase(name, folder, entry)
    shutil.rmtree(folder.parent)


@pytest.fixture(scope="session")
def small_sd15(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallBase]:
    """Stable Diffusion 1.5, narrow."""
    yield from _made("sd15", tmp_path_factory)


@pytest.fixture(scope="session")
def small_ssd_1b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallBase]:
    """SSD-1B, narrow."""
    yield from _made("ssd-1b", tmp_path_factory)


@pytest.fixture(scope="session")
def small_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallBase]:
    """SDXL, narrow."""
    yield from _made("sdxl", tmp_path_factory)
