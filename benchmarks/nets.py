"""The real architectures with random weights: what they compute takes as long as with trained ones.

Needs what benchmarks/gpu.py needs.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from jobs.architectures import ArchitectureEntry
from jobs.catalog import load_catalog
from workers.lora import LORA_TARGETS

#: Edge of the pictures that reduced nets make.
SMALL_PIXELS = 64
SMALL_BATCH = 4
RANK = 64
#: CLIP's vocabulary and the tokens it reads.
VOCABULARY, TOKENS = 49_408, 77
#: Spread that pictures of random decoders are given, so that a codec has something to do.
CONTRAST = 0.35


@dataclass(frozen=True)
class Architecture:
    """One base model as its configurations; `small`: reduced, to run the path and not measure."""

    name: str
    small: bool
    #: Its UNet, as the catalog's own.
    known: ArchitectureEntry
    #: `nets.toml`.
    tables: dict[str, Any]

    @property
    def family(self) -> str:
        """sd (one text encoder) or sdxl (two, and size conditioning)."""
        return self.known.family

    @property
    def pixels(self) -> int:
        """Edge of its pictures."""
        return SMALL_PIXELS if self.small else int(self.tables[self.name]["pixels"])

    @property
    def batch(self) -> int:
        """Images in a batch."""
        return SMALL_BATCH if self.small else int(self.tables[self.name]["batch"])

    @property
    def facts(self) -> dict[str, Any]:
        """What the table knows of it: `tflop`, `millions`, `lora`."""
        found: dict[str, Any] = self.tables[self.name]
        return found

    def tflop(self, steps: int) -> float:
        """Tera floating point operations of one image in `steps` UNet calls."""
        cost = self.facts["tflop"]
        return steps * float(cost["unet"]) + float(cost["vae"]) + float(cost["text"])

    def unet(self) -> UNet2DConditionModel:
        """Its UNet with random weights, on torch's default device."""
        table = self.facts
        reduced = table["small"] if self.small else {}
        return UNet2DConditionModel.from_config(
            {**self.known.configuration, **reduced, "sample_size": self.pixels // 8}
        )

    def vae(self) -> AutoencoderKL:
        """Its autoencoder."""
        scaling = 0.18215 if self.family == "sd" else 0.13025
        return AutoencoderKL.from_config({**self._table("vae"), "scaling_factor": scaling})

    def text_encoders(self) -> list[Any]:
        """CLIP-L, and for sdxl bigG with its projection."""
        first = CLIPTextModel(_clip(self._table("text_encoder")))
        if self.family == "sd":
            return [first]
        return [first, CLIPTextModelWithProjection(_clip(self._table("text_encoder_2")))]

    def _table(self, name: str) -> dict[str, Any]:
        table = {key: value for key, value in self.tables[name].items() if key != "small"}
        return {**table, **self.tables[name]["small"]} if self.small else table


def architectures(*, small: bool = False) -> dict[str, Architecture]:
    """Every architecture by its name."""
    tables = tomllib.loads(Path(__file__).with_name("nets.toml").read_text("utf-8"))
    known = load_catalog().architectures
    names = [name for name, table in tables.items() if "tflop" in table]
    return {name: Architecture(name, small, known[name], tables) for name in names}


def _clip(table: dict[str, Any]) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY, max_position_embeddings=TOKENS, eos_token_id=VOCABULARY - 1, **table
    )


def byte_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level tokenizer without its merges: any text, always 77 tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - 188)]
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    numbers = {token: number for number, token in enumerate(tokens)}
    numbers |= {"<|startoftext|>": VOCABULARY - 2, "<|endoftext|>": VOCABULARY - 1}
    return CLIPTokenizer(vocab=numbers, merges=[], model_max_length=TOKENS)


def add_lora(unet: Any) -> int:
    """A random rank-64 LCM-LoRA on the modules of the published ones; how many they are."""
    config = LoraConfig(
        r=RANK, lora_alpha=RANK, target_modules=list(LORA_TARGETS), init_lora_weights=True
    )
    unet.add_adapter(config)
    ups = [values for name, values in unet.named_parameters() if ".lora_B." in name]
    for values in ups:
        if not values.is_meta:
            # Ups begin as zeros; so small that the sums of deep nets stay numbers.
            torch.nn.init.normal_(values, std=1e-3)
    return len(ups)


def build(architecture: Architecture, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline with its LCM-LoRA fused in float32, cast once, on `device`."""
    with torch.device(device):
        unet, vae = architecture.unet(), architecture.vae()
        encoders = architecture.text_encoders()
        add_lora(unet)
        unet.fuse_lora()
        unet.unload_lora()
    scheduler = LCMScheduler(**architecture.tables["scheduler"])
    parts = {"vae": vae, "unet": unet, "scheduler": scheduler, "text_encoder": encoders[0]}
    if architecture.family == "sd":
        pipeline = StableDiffusionPipeline(
            **parts,
            tokenizer=byte_tokenizer(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    else:
        pipeline = StableDiffusionXLPipeline(
            **parts,
            text_encoder_2=encoders[1],
            tokenizer=byte_tokenizer(),
            tokenizer_2=byte_tokenizer(),
        )
    _spread(vae, device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device=device, dtype=dtype)
    for net in (unet, vae, *encoders):
        net.eval().requires_grad_(False)
    return pipeline


@torch.no_grad()
def _spread(vae: Any, device: torch.device) -> None:
    """Scale the decoder's last layer to pictures with contrast: theirs would be plain grey."""
    latents = torch.randn((1, 4, 16, 16), device=device)
    spread = float(vae.decode(latents / vae.config.scaling_factor).sample.std())
    vae.decoder.conv_out.weight.mul_(CONTRAST / spread)
    vae.decoder.conv_out.bias.zero_()
