"""Growth: whether an image of a large job costs more than one of a small job."""

import statistics

from benchmarks.end_to_end import fewstep_side
from benchmarks.measure import Line
from benchmarks.stack import Renderer, running_stack
from benchmarks.workload import Scale, recipe

ROW = "growth"
#: One step an image, so that what surrounds the net weighs the most.
STEPS = 1
SHARD = 64


def run(scale: Scale) -> list[Line]:
    """The line of this row: milliseconds an image, of the large job beside the small one.

    The small one runs before and after each large one, so that a machine that slows down
    meanwhile is not taken for growth.
    """
    small, large = scale.growth_images
    with running_stack() as stack:
        renderer = Renderer(stack, recipe(steps=STEPS))
        try:
            of_small = fewstep_side(stack, renderer, small, shard_images=SHARD, steps=STEPS)
            of_large = fewstep_side(stack, renderer, large, shard_images=SHARD, steps=STEPS)
            of_small(0)
            before, big, after = of_small(1), of_large(2), of_small(3)
            again, end = of_large(4), of_small(5)
        finally:
            renderer.close()
    smalls = [1e3 / rate for rate in (before, after, end)]
    larges = [1e3 / rate for rate in (big, again)]
    ratio = statistics.median(larges) / statistics.median(smalls)
    return [
        Line(
            row=ROW,
            what=f"an image of a job of {large} images",
            against=f"of {small} images",
            unit="ms/image",
            ours=statistics.median(larges),
            theirs=statistics.median(smalls),
            ratio=ratio,
            most=1.1,
            note=f"{STEPS} step an image, shards of {SHARD}",
            rounds={"ours": larges, "theirs": smalls},
        )
    ]
