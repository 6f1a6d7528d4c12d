"""Batch shapes: what is remembered of a size, and what is not."""

from pathlib import Path

from jobs.catalog import Catalog
from jobs.recipe import RecipeRequest
from workers.shapes import BatchShapes


def test_what_one_job_asks_for_is_no_limit_to_the_next(catalog: Catalog, tmp_path: Path) -> None:
    """The shape of a batch is the recipe's, whichever recipe a renderer met first."""
    recipe = catalog.resolve(RecipeRequest(steps=1))
    small = recipe.model_copy(update={"batch_images": 4})
    for first, second in ((small, recipe), (recipe, small)):
        shapes = BatchShapes("a device", tmp_path)
        assert shapes.shaped(first) == first
        assert shapes.shaped(second) == second
    shapes.halve(recipe)
    for again in (shapes, BatchShapes("a device", tmp_path)):
        assert again.shaped(small).batch_images == 4
        assert again.shaped(recipe).batch_images == recipe.batch_images // 2


def test_a_shape_never_grows(catalog: Catalog, tmp_path: Path) -> None:
    """A batch of the recipe's own shape, made before another thread lowered it, comes late."""
    recipe = catalog.resolve(RecipeRequest(steps=1)).model_copy(update={"batch_images": 16})
    shapes, neighbour = (BatchShapes("a device", tmp_path) for _ in range(2))
    shapes.halve(shapes.halve(recipe))
    assert shapes.halve(recipe).batch_images == 4
    assert neighbour.halve(recipe).batch_images == 4
    assert neighbour.shaped(recipe).batch_images == 4
