"""Ray Data as its guide to batch inference shows it: `map_batches` over a pool of actors."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.data

from benchmarks.peers_diffusers import Putter, pictures, plain_pipeline
from jobs.job import Image
from jobs.recipe import Recipe
from jobs.settings import Settings

#: Ray's object store: the rows are small, and pixels never pass through it.
OBJECTS_BYTES = 200 * 2**20
TRIES = 3


class RendersBatches:
    """The pool's actor: plain diffusers, then PNG and a PUT a picture, pixels staying inside."""

    def __init__(self, recipe: str, settings: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(1)
        self._recipe = Recipe.model_validate_json(recipe)
        self._pipeline = plain_pipeline()
        self._put = Putter(Settings(**settings))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Render a block of images; when it was done is what is measured."""
        images = [Image.model_validate_json(text) for text in batch["image"]]
        made = pictures(self._pipeline, self._recipe, images)
        for image, picture in zip(images, made, strict=True):
            self._put(f"ray-{image.index}", picture)
        return {"done": [time.time()] * len(images)}


@contextmanager
def running_ray(cores: int) -> Iterator[None]:
    """A Ray of this run's own on this machine, as quiet as it can be had; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fewstep-ray-", dir="/tmp") as folder:
        _start(folder, cores)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        try:
            yield
        finally:
            ray.shutdown()


def _start(folder: str, cores: int) -> None:
    """Start it; on a busy machine Ray gives itself up after 30 s, so up to three times."""
    for left in reversed(range(TRIES)):
        try:
            ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=OBJECTS_BYTES,
                _temp_dir=folder,
            )
            return
        except Exception:  # Ray raises nothing narrower for a node that is slow to come up.
            ray.shutdown()
            if not left:
                raise


def images_per_second(images: list[Image], recipe: Recipe, settings: Settings) -> float:
    """Rate from the first batch's end to the last one's: neither Ray's start nor the actor's."""
    plain = {
        "s3_endpoint": settings.s3_endpoint,
        "s3_access_key": settings.s3_access_key and settings.s3_access_key.get_secret_value(),
        "s3_secret_key": settings.s3_secret_key and settings.s3_secret_key.get_secret_value(),
    }
    size = recipe.batch_images
    rows = [{"image": image.model_dump_json()} for image in images]
    done = (
        ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size))
        .map_batches(
            RendersBatches,
            batch_size=size,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=1),
            fn_constructor_args=(recipe.model_dump_json(), plain),
        )
        .take_all()
    )
    moments = sorted(row["done"] for row in done)
    first = moments[0]
    later = sum(moment > first for moment in moments)
    return later / (moments[-1] - first)
