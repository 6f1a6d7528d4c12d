"""The whole renderer on a device with a folder for a store, plain diffusers beside it, and bits."""

import hashlib
import io
import os
import tarfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_parts import SETTINGS, settle
from benchmarks.nets import Architecture
from jobs.job import Image
from jobs.recipe import Recipe, Weights
from jobs.records import LoadTimes
from jobs.rows import Row
from workers.encode import encode
from workers.engine import Engine
from workers.render import BatchRenderer

STEPS = 4
#: Images in one tar.
SHARD = 64
#: Batches that may be asked of the device before the oldest is looked at.
AHEAD = 1
ENCODERS = min(8, os.cpu_count() or 1)


def recipe_of(architecture: Architecture, dtype: torch.dtype) -> Recipe:
    """LCM in four steps without guidance, at the architecture's own size and batch."""
    return Recipe(
        model=architecture.name,
        family=architecture.family,
        base=Weights(source="random"),
        accelerator=None,
        styles=(),
        sampler="lcm",
        sampler_settings={"original_inference_steps": 50},
        steps=STEPS,
        guidance=1.0,
        width=architecture.pixels,
        height=architecture.pixels,
        dtype=str(dtype).removeprefix("torch."),  # type: ignore[arg-type]
        batch_images=architecture.batch,
    )


def engine_of(pipeline: Any, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Engine:
    """The engine around a pipeline that is on its device already, as `load_engine` leaves it."""
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    return Engine(
        engine_key=recipe.engine_key,
        family=recipe.family,
        pipeline=pipeline,
        device=device,
        dtype=dtype,
        model_sha256="",
        accelerator_sha256="",
        styles=(),
        load_times=LoadTimes(),
    )


def some_images(count: int, first: int = 0) -> list[Image]:
    """`count` images of distinct prompts; number and seed are the same."""
    return [
        Image(index=n, row_index=n, repeat=0, seed=n, row=Row(prompt=f"a red circle, {n}"))
        for n in range(first, first + count)
    ]


class Shelf:
    """A folder for a store: pictures encoded on threads, a tar for every `SHARD` of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._encoders = ThreadPoolExecutor(ENCODERS, "encode")
        self._writer = ThreadPoolExecutor(1, "write")
        self._files: list[tuple[int, Future[bytes]]] = []
        self._tars: list[Future[None]] = []

    def add(self, images: Sequence[Image], made: Sequence[Any]) -> None:
        """Take a batch's pictures; raises where one could not be made: then nothing counts."""
        for image, one in zip(images, made, strict=True):
            if one.pixels is None:
                raise RuntimeError(f"picture {image.index}: {one.error}")
            settings = {**SETTINGS, "prompt": image.row.prompt, "seed": image.seed}
            file = self._encoders.submit(encode, one.pixels, "png", 95, settings)
            self._files.append((image.index, file))
        if len(self._files) >= SHARD:
            self._hand_over()

    def close(self) -> None:
        """Wait until everything is written."""
        self._hand_over()
        for tar in self._tars:
            tar.result()
        self._encoders.shutdown()
        self._writer.shutdown()

    def _hand_over(self) -> None:
        files, self._files = self._files, []
        if files:
            self._tars.append(self._writer.submit(self._write, len(self._tars), files))

    def _write(self, number: int, files: list[tuple[int, Future[bytes]]]) -> None:
        path = self._folder / f"{number:05d}.tar"
        with path.open("wb") as target, tarfile.open(fileobj=target, mode="w|") as tar:
            for index, file in files:
                data = file.result()
                member = tarfile.TarInfo(f"{index:09d}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())


def render_all(
    renderer: BatchRenderer,
    recipe: Recipe,
    images: Sequence[Image],
    take: Callable[[Sequence[Image], Sequence[Any]], None],
) -> None:
    """Every batch of `images` through the renderer, the next one asked for before looking."""
    asked: deque[tuple[Sequence[Image], Any]] = deque()
    for start in range(0, len(images), recipe.batch_images):
        some = images[start : start + recipe.batch_images]
        asked.append((some, renderer.render(recipe, some)))
        if len(asked) > AHEAD:
            batch, made = asked.popleft()
            take(batch, made.images)
    for batch, made in asked:
        take(batch, made.images)


def device_seconds(renderer: BatchRenderer, recipe: Recipe, images: Sequence[Image]) -> float:
    """The device alone: the batches, and nothing done with them."""
    started = time.perf_counter()
    render_all(renderer, recipe, images, lambda batch, made: None)
    return time.perf_counter() - started


def whole_seconds(
    renderer: BatchRenderer, recipe: Recipe, images: Sequence[Image], folder: Path
) -> float:
    """The same with every picture in a lossless PNG in a tar in `folder`."""
    shelf = Shelf(folder)
    started = time.perf_counter()
    try:
        render_all(renderer, recipe, images, shelf.add)
    finally:
        shelf.close()
    return time.perf_counter() - started


def plain_seconds(pipeline: Any, recipe: Recipe, images: Sequence[Image], folder: Path) -> float:
    """Plain diffusers in batches of the same size, each picture saved as Pillow's PNG."""
    started = time.perf_counter()
    for start in range(0, len(images), recipe.batch_images):
        some = images[start : start + recipe.batch_images]
        made = pipeline(
            [image.row.prompt for image in some],
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            width=recipe.width,
            height=recipe.height,
            generator=[torch.Generator().manual_seed(image.seed) for image in some],
        )
        for image, picture in zip(some, made.images, strict=True):
            picture.save(folder / f"{image.index}.png")
    return time.perf_counter() - started


def equal_bits(renderer: BatchRenderer, recipe: Recipe) -> dict[str, bool]:
    """Whether an image's pixels are the same alone, first, last, and beside other neighbours."""
    [image] = some_images(1, first=1_000)
    others = some_images(recipe.batch_images - 1)
    strangers = some_images(recipe.batch_images - 1, first=2_000)

    def pixels(batch: list[Image]) -> bytes:
        made = renderer.render(recipe, batch).images[batch.index(image)]
        if made.pixels is None:
            raise RuntimeError(made.error)
        return made.pixels.tobytes()

    alone = pixels([image])
    settings = {
        "again": [image],
        "first": [image, *others],
        "last": [*others, image],
        "other neighbours": [image, *strangers],
    }
    return {name: pixels(batch) == alone for name, batch in settings.items()}


def warm(renderer: BatchRenderer, recipe: Recipe, device: torch.device) -> float:
    """Seconds of a warm batch, by which the length of a measurement is chosen."""
    images = some_images(recipe.batch_images)
    device_seconds(renderer, recipe, images)
    settle(device)
    return device_seconds(renderer, recipe, images)
