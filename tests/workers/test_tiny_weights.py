"""The shipped weights: small enough, loadable by plain diffusers, and drawing what is asked."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from numpy.typing import NDArray

from workers.tiny import LCM_LORA_DIR, MODEL_DIR, OUTLINE_LORA_DIR
from workers.tiny.captions import COLOURS, SHAPES, Attributes, canonical, draw_attributes
from workers.tiny.scenes import COLOUR_RGB, render

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


def _shape(picture: NDArray[np.floating], row: NDArray[np.int64], tries: int = 24) -> int:
    """The shape whose true drawings, at the asked place and size, cover most alike."""
    mask, best = _mask(picture), []
    for shape in range(len(SHAPES)):
        table = np.repeat(row[None], tries, axis=0)
        table[:, 0] = shape
        drawn = render(np.random.default_rng(shape), Attributes.of(table)).pictures.astype(float)
        masks = np.stack([_mask(one) for one in drawn])
        both, either = (masks & mask).sum((1, 2)), (masks | mask).sum((1, 2))
        best.append(float((both / np.maximum(either, 1)).max()))
    return int(np.argmax(best))


def _colour(picture: NDArray[np.floating], row: NDArray[np.int64]) -> int:
    mask = _mask(picture)
    if not mask.any():
        return -1
    seen = np.median(picture[mask], axis=0)
    return int(np.abs(COLOUR_RGB - seen).sum(1).argmin())


def _right(pictures: NDArray[np.floating]) -> tuple[int, int]:
    rows = WANTED.table()
    shapes = sum(_shape(p, r) == r[0] for p, r in zip(pictures, rows, strict=True))
    colours = sum(_colour(p, r) == r[1] for p, r in zip(pictures, rows, strict=True))
    return shapes, colours


def test_the_reading_reads_true_pictures() -> None:
    true = render(np.random.default_rng(3), WANTED).pictures.astype(float)
    shapes, colours = _right(true)
    assert shapes >= 0.9 * PICTURES
    assert colours >= 0.9 * PICTURES
    assert len(COLOURS) == len(COLOUR_RGB)


def _pipeline() -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL_DIR, torch_dtype=torch.float32)
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
