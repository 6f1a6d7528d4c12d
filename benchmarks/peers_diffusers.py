"""Plain diffusers as its documentation shows it, with Pillow and one PUT a picture."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL.Image import Image as Picture
from transformers.utils import logging as transformers_logging

from jobs.job import Image
from jobs.recipe import Recipe
from jobs.s3_client import s3_clients
from jobs.settings import Settings
from workers import tiny

#: Threads of the peer that takes PNG and PUTs off the device's clock.
PUTTERS = 4


def plain_pipeline(*, compiled: bool = False) -> Any:
    """The same weights with the LCM-LoRA fused and unloaded, float32, no progress bar.

    `compiled`: UNet and VAE decoder by `torch.compile`, as diffusers' guide to speed has it.
    """
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.MODEL_DIR, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = LCMScheduler.from_config(
        pipeline.scheduler.config, original_inference_steps=25
    )
    pipeline.load_lora_weights(tiny.LCM_LORA_DIR)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    if compiled:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
        pipeline.unet = torch.compile(pipeline.unet, fullgraph=True)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode, fullgraph=True)
    return pipeline


def pictures(pipeline: Any, recipe: Recipe, images: list[Image]) -> list[Picture]:
    """One call of the pipeline; the seeds are those that fewstep would use."""
    made = pipeline(
        [image.row.prompt for image in images],
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance,
        width=recipe.width,
        height=recipe.height,
        generator=[torch.Generator().manual_seed(image.seed) for image in images],
    )
    found: list[Picture] = made.images
    return found


def png(picture: Picture) -> bytes:
    """Pillow's PNG at its defaults."""
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


class Putter:
    """Puts a picture an object, over one client that keeps its connections."""

    def __init__(self, settings: Settings) -> None:
        self._client = s3_clients(settings)[1]
        self._bucket = settings.s3_bucket

    def __call__(self, name: str, picture: Picture) -> None:
        """Encode and store one picture."""
        self._client.put_object(
            Bucket=self._bucket, Key=f"peer/{name}.png", Body=png(picture), ContentType="image/png"
        )


#: Of pipeline, recipe, store and batch, a call that renders and stores images.
Way = Callable[[Any, Recipe, Putter, int], Callable[[list[Image]], None]]


def in_line(
    pipeline: Any, recipe: Recipe, put: Putter, batch: int
) -> Callable[[list[Image]], None]:
    """The loop that most scripts are: a call of `batch` prompts, then each picture stored."""

    def render(images: list[Image]) -> None:
        for start in range(0, len(images), batch):
            some = images[start : start + batch]
            made = pictures(pipeline, recipe, some)
            for image, picture in zip(some, made, strict=True):
                put(str(image.index), picture)

    return render


def overlapped(
    pipeline: Any, recipe: Recipe, put: Putter, batch: int
) -> Callable[[list[Image]], None]:
    """The careful script: PNG and PUTs on threads while the next batch is rendered."""

    def render(images: list[Image]) -> None:
        with ThreadPoolExecutor(PUTTERS) as pool:
            waiting = []
            for start in range(0, len(images), batch):
                some = images[start : start + batch]
                made = pictures(pipeline, recipe, some)
                waiting += [
                    pool.submit(put, str(image.index), picture)
                    for image, picture in zip(some, made, strict=True)
                ]
            for one in waiting:
                one.result()

    return render
