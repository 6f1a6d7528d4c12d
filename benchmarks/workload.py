"""The work that both sides of a comparison do: prompts, images, recipe and plain calls."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from jobs.catalog import load_catalog
from jobs.job import Image
from jobs.recipe import Recipe, RecipeRequest
from jobs.rows import Row
from jobs.seeds import image_seed
from workers.compiling import CompiledRenderer, compiler
from workers.engine import load_engine, pick_device
from workers.render import BatchRenderer

#: One thread for nets on every side: it stands for a device. Everything else (PNG, uploads, the
#: S3 server, Redis) has the machine's other cores, on every side alike.
THREADS = 1

_WORDS = (
    ("big", "small"),
    ("red", "green", "blue", "yellow", "purple", "orange"),
    ("circle", "square", "triangle", "star", "ring", "cross", "heart", "diamond"),
    ("on the left", "on the right", "at the top", "at the bottom", "in the centre"),
)


@dataclass(frozen=True)
class Scale:
    """How much is measured; `quick` is for finding out whether it runs, not how fast."""

    quick: bool
    rounds: int
    #: Images in one round of the end-to-end rows, ours and the bare engine.
    images: int
    #: Images in one round of a batched peer, and of one that takes a prompt a call.
    peer_images: int
    loop_images: int
    memory_images: int
    growth_images: tuple[int, int]
    #: Edges of the pictures in the codec table.
    edges: tuple[int, ...]
    compiled: bool


FULL = Scale(False, 5, 1024, 256, 64, 2000, (1_000, 10_000), (512, 1024), True)
QUICK = Scale(True, 1, 64, 32, 4, 320, (64, 128), (64,), False)


def recipe(**wanted: int) -> Recipe:
    """The tiny model with its LCM-LoRA: four steps, no guidance, unless `wanted` says else."""
    return load_catalog().resolve(RecipeRequest(**wanted))


def prompts(count: int, number: int) -> list[str]:
    """`count` distinct prompts that no other round `number` has: no side profits from a cache."""
    words = [" ".join(("a", *some)) for some in product(*_WORDS)]
    return [f"{words[n % len(words)]}, {number}-{n}" for n in range(count)]


def images(texts: list[str], job_seed: int = 7) -> list[Image]:
    """An image of each prompt, with the seed a job would give it."""
    return [
        Image(
            index=n,
            row_index=n,
            repeat=0,
            seed=image_seed(job_seed, n, 0),
            row=Row(prompt=text),
        )
        for n, text in enumerate(texts)
    ]


def bare_renderer(one: Recipe, *, compiled: bool = False) -> BatchRenderer:
    """The render loop alone: no queue, no store, no encoder; compiled before it is measured."""
    engine = load_engine(one, pick_device(THREADS))
    if not compiled:
        return BatchRenderer(engine)
    renderer = CompiledRenderer(engine, compiler("warm", engine.device))
    renderer.prepare(one)
    return renderer


def seconds(call: Callable[[], object]) -> float:
    """How long `call()` takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
