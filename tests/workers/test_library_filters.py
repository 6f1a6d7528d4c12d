"""Filters by nets that an operator names: here small ones with random weights, so no taste."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from jobs.catalog import load_catalog
from jobs.errors import BadConfiguration
from jobs.filters import FilterEntry
from tests.flow.test_datasets_page import blocks_of
from workers import tiny
from workers.depot import Depot
from workers.filter_kinds import AT_ONCE, load_score
from workers.perceptual_hash import perceptual_hash

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64}
SMALL |= {"num_hidden_layers": 1, "num_attention_heads": 2}
SIZES: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
PICTURES = np.random.default_rng(3).integers(0, 256, (AT_ONCE + 5, 64, 64, 3), dtype=np.uint8)
PROMPTS = ["a red circle", "a star"] * ((AT_ONCE + 5) // 2) + ["a small blue star on the left"]


def clip(folder: Path) -> FilterEntry:
    """A CLIP of random weights."""
    tokenizer = CLIPTokenizer.from_pretrained(tiny.MODEL_DIR / "tokenizer")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = SMALL | ends | {"vocab_size": len(tokenizer), "max_position_embeddings": 24}
    vision = SMALL | {"image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(**SIZES), tokenizer).save_pretrained(folder)
    return FilterEntry(kind="clip", source=f"path:{folder}")


def classifier(folder: Path) -> FilterEntry:
    """A ViT that tells two classes apart, by random weights."""
    labels = {0: "normal", 1: "nsfw"}
    config = ViTConfig(**SMALL, image_size=32, patch_size=16, id2label=labels)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return FilterEntry(kind="classifier", source=f"path:{folder}", label="NSFW")


def aesthetic(folder: Path) -> FilterEntry:
    """CLIP's eye and two linear layers behind it, all random."""
    config = CLIPVisionConfig(**SMALL, image_size=32, patch_size=16, projection_dim=16)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessorPil(**SIZES).save_pretrained(folder)
    layers = {0: (4, 16), 2: (1, 4)}
    tensors = {f"layers.{n}.weight": torch.randn(*shape) for n, shape in layers.items()}
    tensors |= {f"layers.{n}.bias": torch.randn(shape[0]) for n, shape in layers.items()}
    save_file(tensors, folder / "head.safetensors")
    return FilterEntry(kind="aesthetic", source=f"path:{folder}", file="head.safetensors")


@pytest.mark.parametrize(
    ("make", "low", "high"), [(clip, 0, 100), (classifier, 0, 1), (aesthetic, -99, 99)]
)
def test_a_score_is_the_pictures_own(
    tmp_path: Path, make: Callable[[Path], FilterEntry], low: float, high: float
) -> None:
    torch.manual_seed(0)
    score = load_score(make(tmp_path), Depot())
    found = np.asarray(score(PICTURES, PROMPTS))
    assert found.shape == (len(PICTURES),)
    assert ((found >= low) & (found <= high)).all()
    assert len(set(found)) > 1
    alone = [np.asarray(score(PICTURES[n : n + 1], PROMPTS[n : n + 1]))[0] for n in (0, 7, 20)]
    # To the last bit: which seed is taken may hang on it.
    assert alone == [found[n] for n in (0, 7, 20)]


def test_weights_that_will_not_do_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"no \.safetensors file"):
        load_score(FilterEntry(kind="clip", source=f"path:{tmp_path / 'nowhere'}"), Depot())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(BadConfiguration, match="pickled"):
        load_score(FilterEntry(kind="clip", source=f"path:{tmp_path}"), Depot())
    entry = classifier(tmp_path / "vit").model_copy(update={"label": "cat"})
    with pytest.raises(BadConfiguration, match="no class 'cat', only normal, nsfw"):
        load_score(entry, Depot())
    entry = aesthetic(tmp_path / "eye").model_copy(update={"file": "model.safetensors"})
    with pytest.raises(BadConfiguration, match="not hold linear layers"):
        load_score(entry, Depot())


def test_the_pages_catalog_is_one(tmp_path: Path) -> None:
    tables = [text for name, _, text in blocks_of("filters.md") if (name or "").endswith(".toml")]
    (tmp_path / "catalog.toml").write_text("".join(tables), "utf-8")
    filters = load_catalog(tmp_path / "catalog.toml").filters
    assert {one.kind for one in filters.values()} == {
        *("judge", "duplicate", "plugin", "clip", "classifier", "aesthetic")
    }


def test_a_hash_stays_where_a_picture_changes_little() -> None:
    y, x = np.mgrid[:64, :64]
    disc = ((x - 20) ** 2 + (y - 30) ** 2 < 200)[:, :, None]
    red, blue = (
        np.where(disc, np.array(colour), np.array([230, 230, 230])).astype(np.uint8)
        for colour in ((200, 30, 30), (30, 30, 200))
    )
    noise = np.random.default_rng(1).normal(0, 3, red.shape)
    noisy = np.clip(red + noise, 0, 255).astype(np.uint8)
    assert (perceptual_hash(red) ^ perceptual_hash(noisy)).bit_count() < 4
    assert (perceptual_hash(red) ^ perceptual_hash(blue)).bit_count() >= 4
    assert (perceptual_hash(red) ^ perceptual_hash(np.roll(red, 20, 1))).bit_count() >= 4
