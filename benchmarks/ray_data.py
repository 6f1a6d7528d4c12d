"""End to end into S3 beside Ray Data: `map_batches` with an actor pool, the same store."""

import os

from benchmarks.end_to_end import fewstep_side
from benchmarks.measure import Line, alternate, faster
from benchmarks.peers_ray_data import images_per_second, running_ray
from benchmarks.stack import Renderer, running_stack
from benchmarks.workload import Scale, images, prompts, recipe

ROW = "ray_data"


def run(scale: Scale) -> list[Line]:
    """The lines of this row; Ray is up while either side runs."""
    one = recipe()
    with running_stack() as stack, running_ray(os.cpu_count() or 1):
        renderer = Renderer(stack, one)

        def theirs(number: int) -> float:
            work = images(prompts(scale.peer_images, number))
            return images_per_second(work, one, stack.settings)

        try:
            sides = {"ours": fewstep_side(stack, renderer, scale.images), "theirs": theirs}
            figures = alternate(sides, scale.rounds)
        finally:
            renderer.close()
    return [
        faster(
            ROW,
            "end to end into S3",
            f"Ray Data map_batches, an actor pool, {one.batch_images} a batch, PNG, PUTs",
            figures["ours"],
            figures["theirs"],
            least=2.5,
            note="one actor beside one renderer; its rate from the first batch's end to the last",
        )
    ]
