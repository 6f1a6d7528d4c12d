"""Memory figures: counted on meta tensors, and equal to what the registry and the paper say."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from jobs.architectures import fingerprint
from jobs.catalog import load_catalog
from jobs.footprint import footprint
from jobs.offers import model_offers
from workers.lora import LORA_TARGETS

CATALOG = load_catalog()
#: Architecture -> its LCM-LoRA, and the trainable parameters that the LCM-LoRA report tells.
REPORTED = {
    "sd15": ("lcm-sd15", 67.5e6),
    "ssd-1b": ("lcm-ssd-1b", 105e6),
    "sdxl": ("lcm-sdxl", 197e6),
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20}


def count(net: Any, part: str = "") -> int:
    return sum(one.numel() for name, one in net.named_parameters() if part in name)


def text_parameters(family: str) -> int:
    shared = {"vocab_size": 49408, "max_position_embeddings": 77}
    large = CLIPTextConfig(num_hidden_layers=12, projection_dim=768, **shared, **CLIP_L)
    huge = CLIPTextConfig(num_hidden_layers=32, projection_dim=1280, **shared, **CLIP_G)
    with torch.device("meta"):
        first = count(CLIPTextModel(large))
        return first + (count(CLIPTextModelWithProjection(huge)) if family == "sdxl" else 0)


@pytest.mark.parametrize("name", REPORTED)
def test_counted_on_meta_tensors(name: str) -> None:
    entry = CATALOG.architectures[name]
    assert entry.parameters is not None
    with torch.device("meta"):
        unet = UNet2DConditionModel(**entry.configuration)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        assert fingerprint(unet.config) == entry.fingerprint
        assert count(unet) == entry.parameters.unet
        unet.add_adapter(LoraConfig(r=64, lora_alpha=64, target_modules=list(LORA_TARGETS)))
    assert count(vae) == entry.parameters.vae
    assert text_parameters(entry.family) == entry.parameters.text

    accelerator, reported = REPORTED[name]
    lora = CATALOG.accelerators[accelerator]
    assert count(unet, "lora_") == lora.parameters
    assert sum(bool(getattr(one, "lora_A", None)) for one in unet.modules()) == lora.modules
    # The report rounds to its own third digit: 67.5, 105 and 197 millions.
    assert lora.parameters == pytest.approx(reported, rel=0.004)


def test_the_tiny_model(engine: Any) -> None:
    told = CATALOG.architectures["tiny"].parameters
    assert told is not None
    nets = engine.pipeline
    found = (count(nets.unet), count(nets.text_encoder), count(nets.vae))
    assert found == (told.unet, told.text, told.vae)
    assert fingerprint(nets.unet.config) == CATALOG.architectures["tiny"].fingerprint


def test_the_arithmetic() -> None:
    """SDXL: 3.47 G parameters in half precision; an adapter's state is a sixth of the whole's."""
    entry = CATALOG.architectures["sdxl"]
    assert entry.parameters is not None
    found = footprint(entry.parameters, 196_751_360, "bfloat16")
    assert found.engine_bytes == found.base_bytes == 2 * 3_468_837_867
    assert found.adapter_bytes == 393_502_720
    assert found.lora_training_bytes == 2 * 2_567_463_684 + 20 * 196_751_360
    assert found.full_training_bytes == 22 * 2_567_463_684
    assert 0.15 < found.training_share < 0.17


def test_every_model_has_its_figures() -> None:
    for name, offer in model_offers(CATALOG).items():
        assert offer.parameters is not None, name
        assert offer.footprint is not None
        assert offer.accelerator in offer.accelerators
