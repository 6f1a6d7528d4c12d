"""Making a picture again: what to ask for so that the same recipe, prompt and seed come out."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from jobs.catalog import Catalog
from jobs.errors import InvalidInput
from jobs.job import Job
from jobs.recipe import Recipe, RecipeRequest, RowRecipe, StyleWeight

#: Fields that a request may leave out where they are what the catalog fills in.
_FILLED_IN = ("sampler", "steps", "guidance", "width", "height", "dtype")


def request_of(catalog: Catalog, recipe: Recipe) -> RecipeRequest:
    """The shortest request that the catalog resolves to this recipe."""
    model = catalog.models.get(recipe.model)
    accelerator = recipe.accelerator.name if recipe.accelerator else "none"
    named = RecipeRequest(
        model=recipe.model,
        accelerator=None if model and model.accelerator == accelerator else accelerator,
        styles=tuple(StyleWeight(name=one.name, weight=one.weight) for one in recipe.styles),
        eta=_eta(recipe),
        vae=_vae(catalog, recipe),
    )
    try:
        filled = catalog.resolve(named)
    except InvalidInput:
        # The catalog has changed since: say everything.
        filled = None
    asked = {
        name: getattr(recipe, name)
        for name in _FILLED_IN
        if filled is None or getattr(filled, name) != getattr(recipe, name)
    }
    return named.model_copy(update=asked)


def full_request_of(catalog: Catalog, recipe: Recipe) -> RecipeRequest:
    """A request that names all that the recipe has: what is changed in it changes nothing else."""
    named = {name: getattr(recipe, name) for name in _FILLED_IN}
    full = request_of(catalog, recipe).model_copy(update=named)
    usual = full.model_copy(update={"eta": None})
    try:
        # An eta that nobody asked for must not stand in the way of a row's own sampler.
        return usual if catalog.resolve(usual) == recipe else full
    except InvalidInput:
        return full


def command_of(
    catalog: Catalog,
    job: Job,
    prompt: str,
    negative: str,
    seed: int,
    own: RowRecipe | None = None,
) -> str:
    """A line for a shell that makes the picture again, as a job of one image."""
    row: dict[str, Any] = {"prompt": prompt, "seed": seed, **(own.given if own else {})}
    if negative:
        row["negative_prompt"] = negative
    # Escapes alone, so that no letter of a prompt acts on the terminal it is pasted into.
    line = shlex.quote(json.dumps(row))
    options = " ".join(shlex.quote(word) for word in _options(catalog, job))
    return f"printf '%s\\n' {line} | fewstep submit - {options}"


def _options(catalog: Catalog, job: Job) -> Iterator[str]:
    request = request_of(catalog, job.recipe)
    for name in ("model", "accelerator", "eta", "vae", *_FILLED_IN):
        value = getattr(request, name)
        if value is not None:
            yield from (f"--{name}", f"{value}")
    for style in request.styles:
        yield from ("--style", f"{style.name}={style.weight}")
    if job.format != "png":
        yield from ("--format", job.format, "--quality", str(job.quality))


def _eta(recipe: Recipe) -> float | None:
    value = recipe.sampler_settings.get("eta")
    return float(value) if isinstance(value, int | float) and recipe.sampler == "tcd" else None


def _vae(catalog: Catalog, recipe: Recipe) -> str | None:
    model = catalog.models.get(recipe.model)
    usual = catalog.vaes.get(model.vae) if model and model.vae else None
    if recipe.vae is None:
        return "own" if usual else None
    names = [name for name, one in catalog.vaes.items() if one.weights == recipe.vae]
    return None if usual and usual.weights == recipe.vae else next(iter(names), None)
