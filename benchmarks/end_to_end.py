"""End to end into S3: the real shard loop beside the bare engine and beside plain diffusers."""

from collections.abc import Callable

from benchmarks.apart import Makers, apart
from benchmarks.measure import Line, Side, alternate, faster
from benchmarks.peers_diffusers import Putter, Way, in_line, overlapped, plain_pipeline
from benchmarks.stack import Renderer, Stack, running_stack
from benchmarks.workload import Scale, bare_renderer, images, prompts, recipe, seconds
from jobs.job import Image, JobRequest
from jobs.recipe import Recipe, RecipeRequest
from jobs.settings import Settings

ROW = "end_to_end"


def run(scale: Scale) -> list[Line]:
    """The lines of this row."""
    one = recipe()
    with running_stack() as stack:
        renderer = Renderer(stack, one)
        try:
            with apart(_peers(stack.settings, one, scale)) as sides:
                sides["fewstep"] = fewstep_side(stack, renderer, scale.images)
                figures = alternate(sides, scale.rounds)
        finally:
            renderer.close()
    ours = figures["fewstep"]
    what = "end to end into S3"
    return [
        faster(
            ROW,
            what,
            "the same batches through the bare engine",
            ours,
            figures["bare"],
            least=0.95,
            note=f"{scale.images} images a round",
        ),
        faster(
            ROW,
            what,
            "diffusers, one prompt a call, PNG, PUT",
            ours,
            figures["loop"],
            least=4.0,
            note=f"the peer: {scale.loop_images} images a round",
        ),
        faster(
            ROW,
            what,
            f"diffusers, {one.batch_images} prompts a call, PNG, PUTs",
            ours,
            figures["batched"],
            least=1.7,
            note=f"the peer: {scale.peer_images} images a round",
        ),
        faster(
            ROW,
            what,
            "the same with PNG and PUTs on 4 threads",
            ours,
            figures["threads"],
            note="the best script we could write with plain diffusers",
        ),
    ]


def fewstep_side(
    stack: Stack, renderer: Renderer, count: int, *, shard_images: int | None = None, **wanted: int
) -> Side:
    """Jobs of `count` images, from the first claim to the last shard's done, in images/s.

    `wanted`: what the recipe differs in from the model's own.
    """

    def side(number: int) -> float:
        request = JobRequest(recipe=RecipeRequest(**wanted), seed=7, shard_images=shard_images)
        job = stack.submit(prompts(count, number), request)
        return count / renderer.render(job)

    return side


def bare_side(one: Recipe, count: int) -> Side:
    """The same images through `BatchRenderer.render`, and nothing else, in images/s."""
    batches = bare_renderer(one)

    def render(work: list[Image]) -> None:
        for start in range(0, len(work), one.batch_images):
            made = batches.render(one, work[start : start + one.batch_images])
            # Whoever looks at them waits for the device.
            assert made.images

    return _rate(render, count)


def peer_side(settings: Settings, one: Recipe, way: Way, batch: int, count: int) -> Side:
    """Plain diffusers in one of the two ways, in images/s."""
    return _rate(way(plain_pipeline(), one, Putter(settings), batch), count)


def _peers(settings: Settings, one: Recipe, scale: Scale) -> Makers:
    batch = one.batch_images
    return {
        "bare": (bare_side, (one, scale.images)),
        "loop": (peer_side, (settings, one, in_line, 1, scale.loop_images)),
        "batched": (peer_side, (settings, one, in_line, batch, scale.peer_images)),
        "threads": (peer_side, (settings, one, overlapped, batch, scale.peer_images)),
    }


def _rate(render: Callable[[list[Image]], None], count: int) -> Side:
    def side(number: int) -> float:
        work = images(prompts(count, number))
        return count / seconds(lambda: render(work))

    return side
