"""What decided a dataset's pixels, as its card tells it."""

from collections.abc import Iterable, Sequence

from jobs.job import Job
from jobs.manifest import Manifest
from jobs.recipe import Recipe
from jobs.setting_tallies import SettingTally

#: Settings that are told one by one, those of the most pictures.
_TOLD = 10


def recipe_facts(
    job: Job, manifests: Sequence[Manifest], settings: Sequence[SettingTally] = ()
) -> Iterable[tuple[str, str]]:
    """Names and values of all that decided the pixels; `settings`: those of the pictures."""
    recipe = job.recipe
    adapters = [recipe.accelerator] if recipe.accelerator else []
    yield (
        "model",
        f"{recipe.model} ({recipe.base.source} {recipe.base.revision})".replace(" )", ")"),
    )
    yield "model sha256", recipe.base.sha256 or "see the rows"
    for kind, found in (("accelerator", adapters), ("style", recipe.styles)):
        for one in found:
            yield kind, f"{one.name}, weight {one.weight:g} ({one.weights.source})"
            yield f"{kind} sha256", one.weights.sha256 or "see the rows"
    yield from _setting_facts(recipe, settings)
    yield "precision", recipe.dtype
    yield "job seed", str(job.seed)
    yield "engine", recipe.engine_key
    yield "made by", f"fewstep {job.fewstep}"
    lost = sum(one.tokens_lost for one in manifests)
    if lost:
        yield "prompt tokens not read", str(lost)


def _setting_facts(recipe: Recipe, settings: Sequence[SettingTally]) -> Iterable[tuple[str, str]]:
    if len(settings) > 1:
        yield "settings by row", f"{len(settings)}: each row tells its own"
        for one in settings[:_TOLD]:
            told = f"{one.sampler}, {one.steps} steps, guidance {one.guidance:g}"
            yield f"{one.width} x {one.height}", f"{told}: {one.pictures} pictures"
        return
    own: Recipe | SettingTally = settings[0] if settings else recipe
    calls = own.steps * (2 if own.guidance > 1 else 1)
    yield "sampler", f"{own.sampler}, {own.steps} steps, guidance {own.guidance:g}"
    yield "UNet calls", f"{calls} a picture"
    yield "size", f"{own.width} x {own.height}"
