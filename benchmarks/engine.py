"""One engine call beside `StableDiffusionPipeline.__call__`, same batch of the tiny model."""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline

from jobs.catalog import load_catalog
from jobs.job import Image
from jobs.recipe import RecipeRequest
from jobs.rows import Row
from workers import tiny
from workers.engine import load_engine, pick_device
from workers.render import BatchRenderer

ROUNDS = 5
PROMPTS = [f"a big red circle on the left, number {number}" for number in range(16)]


def median_ms(call: Callable[[], Any]) -> float:
    """Median of `ROUNDS` calls after one that warms up."""
    call()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def plain_pipeline() -> StableDiffusionPipeline:
    """diffusers as its documentation shows LCM-LoRA: fused, four steps, no guidance."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.MODEL_DIR, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = LCMScheduler.from_config(
        pipeline.scheduler.config, original_inference_steps=25
    )
    pipeline.load_lora_weights(tiny.LCM_LORA_DIR)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return pipeline


def main() -> int:
    """Print one table, and one JSON line for programs."""
    device = pick_device(threads=1)
    recipe = load_catalog().resolve(RecipeRequest())
    renderer = BatchRenderer(load_engine(recipe, device))
    images = [
        Image(index=n, row_index=n, repeat=0, seed=n, row=Row(prompt=prompt))
        for n, prompt in enumerate(PROMPTS)
    ]
    plain = plain_pipeline()

    def by_diffusers() -> Any:
        generators = [torch.Generator().manual_seed(image.seed) for image in images]
        return plain(
            PROMPTS,
            num_inference_steps=recipe.steps,
            guidance_scale=1.0,
            width=recipe.width,
            height=recipe.height,
            generator=generators,
        )

    ours = median_ms(lambda: renderer.render(recipe, images))
    theirs = median_ms(by_diffusers)
    machine = (
        f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    )
    print(f"tiny model, {len(images)} images of 64x64, {recipe.steps} steps, median of {ROUNDS}")
    print(machine)
    print(f"  fewstep BatchRenderer.render      {ours:8.0f} ms")
    print(f"  StableDiffusionPipeline.__call__  {theirs:8.0f} ms   {theirs / ours:.2f}x")
    print(json.dumps({"ours_ms": ours, "diffusers_ms": theirs, "machine": machine}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
