"""The small job that every fault is struck into: 48 images of 32 x 32, one step, shards of 8."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.catalog import Catalog, load_catalog
from jobs.job import JobRequest
from jobs.recipe import RecipeRequest

TENANT = "default"
RECIPE = RecipeRequest(model="tiny", steps=1)
SEED = 7
IMAGES = 48
SHARD_IMAGES = 8
BATCH_IMAGES = 4
_THINGS = ("circle", "star", "square", "triangle")
_COLOURS = ("red", "blue", "green", "white")


@dataclass(frozen=True)
class Whole:
    """What a dataset is to hold: the digest of each image's picture, were all made; and how many
    of them have none."""

    pictures: Mapping[int, str]
    failed: int


def prompt(number: int) -> str:
    """Prompt of row `number`: each of its own, so that a picture in the wrong place shows."""
    return f"a big {_COLOURS[number % 4]} {_THINGS[number // 4 % 4]} number{number} on the left"


def prompts(images: int = IMAGES) -> str:
    """The first rows, a line each."""
    return "".join(f"{prompt(number)}\n" for number in range(images))


def request(shard_images: int = SHARD_IMAGES, priority: int = 4) -> JobRequest:
    """The job over them. Its seed is fixed: the same row is the same picture in every job."""
    return JobRequest(
        recipe=RECIPE, seed=SEED, shard_images=shard_images, priority=priority, name="chaos"
    )


@functools.cache
def chaos_catalog() -> Catalog:
    """The shipped catalog, with the tiny model in small pictures and batches of four."""
    shipped = load_catalog()
    small = {"width": 32, "height": 32, "batch_images": BATCH_IMAGES}
    tiny = shipped.models["tiny"].model_copy(update=small)
    return shipped.model_copy(update={"models": {**shipped.models, "tiny": tiny}})
