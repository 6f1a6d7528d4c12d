"""The shipped weights: small enough, loadable by plain diffusers, and drawing what is asked."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray

from workers.tiny import LCM_LORA_DIR, MODEL_DIR, OUTLINE_LORA_DIR
from workers.tiny.captions import COLOURS, SHAPES, Attributes, canonical, draw_attributes
from workers.tiny.parts import shipped
from workers.tiny.scenes import COLOUR_RGB, SIDE, render
from workers.tiny.teacher import build_unet

PICTURES = 32
WANTED = draw_attributes(np.random.default_rng(0), PICTURES)


def _bytes(*folders: Path) -> int:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if path.suffix != ".md")


def test_the_weights_are_small() -> None:
    assert _bytes(MODEL_DIR) <= 6_500_000
    assert _bytes(MODEL_DIR, LCM_LORA_DIR, OUTLINE_LORA_DIR) <= 8_000_000


def test_their_paths_cost_no_torch() -> None:
    code = "import sys, workers.tiny; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _mask(picture: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where the object is: what differs from the border's median colour."""
    border = np.concatenate([picture[:2].reshape(-1, 3), picture[-2:].reshape(-1, 3)])
    return np.asarray(np.abs(picture - np.median(border, axis=0)).max(-1) > 48)


@cache
def _true_masks(question: int, tries: int = 16) -> NDArray[np.bool_]:
    """Masks of true drawings of every shape at the asked place and size: [8, tries, 64, 64]."""
    table = np.repeat(WANTED.table()[question][None], len(SHAPES) * tries, axis=0)
    table[:, 0] = np.repeat(np.arange(len(SHAPES)), tries)
    drawn = render(np.random.default_rng(question), Attributes.of(table)).pictures.astype(float)
    return np.stack([_mask(one) for one in drawn]).reshape(len(SHAPES), tries, SIDE, SIDE)


def _at_middle(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks [..., 64, 64], each shifted so that its middle is the picture's."""
    flat = masks.reshape(-1, SIDE, SIDE)
    moved = [
        np.roll(mask, [SIDE // 2 - int(c) for c in np.argwhere(mask).mean(0).round()], (0, 1))
        if mask.any()
        else mask
        for mask in flat
    ]
    return np.stack(moved).reshape(masks.shape)


def _shape(picture: NDArray[np.floating], question: int) -> int:
    """The shape whose true drawings, moved onto the picture's object, cover most alike."""
    mask = _at_middle(_mask(picture))
    masks = _at_middle(_true_masks(question))
    both, either = (masks & mask).sum((2, 3)), (masks | mask).sum((2, 3))
    return int((both / np.maximum(either, 1)).max(1).argmax())


def _colour(picture: NDArray[np.floating]) -> int:
    mask = _mask(picture)
    if not mask.any():
        return -1
    seen = np.median(picture[mask], axis=0)
    return int(np.abs(COLOUR_RGB - seen).sum(1).argmin())


def _right(pictures: NDArray[np.floating]) -> tuple[int, int]:
    """How many shapes and colours are as asked, read without any neural net."""
    shapes = [_shape(picture, k) for k, picture in enumerate(pictures)]
    colours = [_colour(picture) for picture in pictures]
    return int((shapes == WANTED.shape).sum()), int((colours == WANTED.colour).sum())


def test_the_reading_reads_true_pictures() -> None:
    true = render(np.random.default_rng(3), WANTED).pictures.astype(float)
    shapes, colours = _right(true)
    assert shapes >= 0.9 * PICTURES
    assert colours >= 0.9 * PICTURES
    assert len(COLOURS) == len(COLOUR_RGB)


def _pipeline() -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_lora_draws_what_is_asked(steps: int) -> None:
    pipeline = _pipeline()
    pipeline.load_lora_weights(LCM_LORA_DIR, adapter_name="lcm")
    pipeline.fuse_lora(components=["unet"])
    pipeline.unload_lora_weights()
    made = pipeline(
        canonical(WANTED),
        num_inference_steps=steps,
        guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(k) for k in range(PICTURES)],
        output_type="np",
    )
    shapes, colours = _right(made.images * 255)
    least = {1: 0.3, 4: 0.6}[steps]
    assert shapes >= least * PICTURES, f"{shapes} of {PICTURES} shapes are right"
    assert colours >= least * PICTURES, f"{colours} of {PICTURES} colours are right"


def test_style_and_accelerator_load_together() -> None:
    pipeline = _pipeline()
    pipeline.load_lora_weights(LCM_LORA_DIR, adapter_name="lcm")
    pipeline.load_lora_weights(OUTLINE_LORA_DIR, adapter_name="outline")
    pipeline.set_adapters(["lcm", "outline"], [1.0, 0.8])
    found = set(pipeline.get_active_adapters())
    assert found == {"lcm", "outline"}


def test_training_can_go_on_from_the_shipped_weights() -> None:
    """Where the checkpoints are gone, the shipped UNet is a place to begin."""
    start = shipped(UNet2DConditionModel, "unet")
    unet = build_unet()
    unet.load_state_dict(start.state_dict())
    assert all(torch.isfinite(value).all() for value in unet.state_dict().values())
