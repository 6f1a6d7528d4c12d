"""What a row changes of its job's recipe: the recipe that its images are made with."""

from collections.abc import Mapping
from typing import Any

from jobs.recipe import Recipe, RowRecipe
from jobs.samplers import settings_with_eta


def recipe_for(recipe: Recipe, own: RowRecipe | None) -> Recipe:
    """The recipe of a row's images, in the same engine."""
    if own is None:
        return recipe
    changed: dict[str, Any] = dict(own.given)
    if own.sampler not in (None, recipe.sampler):
        # Settings are an accelerator's, which has one sampler; any other begins without.
        changed["sampler_settings"] = settings_with_eta(changed["sampler"], {}, None)
    return recipe.model_copy(update=changed)


def own_recipe(recipe: Recipe, row: Mapping[str, Any]) -> RowRecipe | None:
    """What the columns of an image's row say that it had other than its job's recipe."""
    found = {
        name: row[name]
        for name in RowRecipe.model_fields
        if row.get(name) is not None and row[name] != getattr(recipe, name)
    }
    return RowRecipe(**found) if found else None
