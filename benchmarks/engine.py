"""One engine call beside `StableDiffusionPipeline.__call__`, same batch, same pictures."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.apart import Makers, apart
from benchmarks.measure import Line, Side, alternate, quicker
from benchmarks.peers_diffusers import pictures, plain_pipeline
from benchmarks.workload import Scale, bare_renderer, images, prompts, recipe, seconds
from jobs.recipe import Recipe
from workers.render import BatchRenderer

ROW = "engine"
#: Calls in one round: one alone is too short to time.
CALLS = 4
#: Sizes and repetitions of the two probes of the thread's limit.
MATRIX, WIDTH, PROBES = 1024, 256, 5


def run(scale: Scale) -> list[Line]:
    """The lines of this row: eager, and compiled where the scale has time for it."""
    one = recipe()
    makers: Makers = {"ours": (ours_side, (one, False)), "theirs": (theirs_side, (one, False))}
    if scale.compiled:
        makers["ours_compiled"] = (ours_side, (one, True))
        makers["theirs_compiled"] = (theirs_side, (one, True))
    with apart(makers) as sides:
        figures = alternate(sides, scale.rounds)
    ours = bare_renderer(one)
    furthest = _furthest(one, ours, plain_pipeline())
    what = f"one engine call, {one.batch_images} images"
    against = "StableDiffusionPipeline.__call__"
    same = f"pictures differ by {furthest} of 255 at most; {_limit(one, ours, figures['ours'])}"
    lines = [quicker(ROW, what, against, figures["ours"], figures["theirs"], least=1.3, note=same)]
    if scale.compiled:
        compiled = figures["ours_compiled"]
        lines += [
            quicker(ROW, f"{what}, compiled", against, compiled, figures["theirs"], least=1.8),
            quicker(
                ROW,
                f"{what}, compiled",
                f"{against}, compiled and channels_last",
                compiled,
                figures["theirs_compiled"],
                note="what is left once both are compiled",
            ),
        ]
    return lines


def ours_side(one: Recipe, compiled: bool) -> Side:
    """The engine's call, in milliseconds."""
    renderer = bare_renderer(one, compiled=compiled)
    return _milliseconds(lambda number: renderer.render(one, _batch(one, number)).images)


def theirs_side(one: Recipe, compiled: bool) -> Side:
    """The pipeline's call, in milliseconds."""
    pipeline = plain_pipeline(compiled=compiled)
    return _milliseconds(lambda number: pictures(pipeline, one, _batch(one, number)))


def _batch(one: Recipe, number: int) -> Any:
    return images(prompts(one.batch_images, number))


def _milliseconds(call: Callable[[int], object]) -> Side:
    def side(number: int) -> float:
        def calls() -> None:
            for again in range(CALLS):
                # Other prompts each time: neither side profits from an embedding it has kept.
                call(CALLS * number + again)

        return seconds(calls) * 1e3 / CALLS

    return side


def _limit(one: Recipe, renderer: BatchRenderer, milliseconds: list[float]) -> str:
    """How near ours is to what this thread can reach at all: the FLOP of a call, and the rates
    of a large matrix product and of a large convolution."""
    by_onednn = torch.ops.mkldnn._linear_pointwise
    with FlopCounterMode(display=False, custom_mapping={by_onednn: _linear_flop}) as counter:
        renderer.render(one, _batch(one, 1))
    call = counter.get_total_flops()
    reached = call / (statistics.median(milliseconds) / 1e3) / 1e9
    matrix, edge = torch.randn(MATRIX, MATRIX), 32
    picture = torch.randn(16, WIDTH, edge, edge).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(WIDTH, WIDTH, 3, 3).contiguous(memory_format=torch.channels_last)
    product = _best_gflops(2 * MATRIX**3, lambda: matrix @ matrix)
    folded = _best_gflops(
        2 * 9 * 16 * edge**2 * WIDTH**2, lambda: torch.conv2d(picture, kernel, padding=1)
    )
    return (
        f"a call has {call / 1e9:.1f} GFLOP, ours reaches {reached:.0f} GFLOP/s, "
        f"a {MATRIX}x{MATRIX} product {product:.0f}, a 3x3 convolution of {WIDTH} {folded:.0f}"
    )


def _linear_flop(values: Any, weight: Any, *_: Any, **__: Any) -> int:
    """FLOP of a linear layer by oneDNN: two for each weight and row. All it is given are shapes."""
    return int(2 * math.prod(values[:-1]) * math.prod(weight))


def _best_gflops(flop: int, call: Callable[[], object]) -> float:
    call()
    return flop / min(seconds(call) for _ in range(PROBES)) / 1e9


def _furthest(one: Recipe, renderer: BatchRenderer, pipeline: Any) -> int:
    """The largest difference of a pixel between both sides: they must do the same work."""
    batch = _batch(one, 0)
    ours = [made.pixels for made in renderer.render(one, batch).images]
    theirs = [np.asarray(made) for made in pictures(pipeline, one, batch)]
    if any(made is None for made in ours):
        raise RuntimeError("the engine made no picture of some prompt")
    return max(
        int(np.abs(np.int16(mine) - np.int16(other)).max())  # type: ignore[arg-type]
        for mine, other in zip(ours, theirs, strict=True)
    )
