"""A picture as it was made: its whole row, and the job that it is of."""

from typing import Any

from jobs.job import Image, Job
from jobs.recipe import Frozen, Recipe
from jobs.row_recipe import own_recipe, recipe_for
from jobs.rows import Row


class Original(Frozen):
    """A row of a dataset, and the job whose recipe it was made with."""

    job: Job
    row: dict[str, Any]

    @property
    def image(self) -> Image:
        """What was to be made."""
        row = self.row
        text = Row(prompt=row["prompt"], negative_prompt=row["negative_prompt"])
        return Image(
            index=row["image"],
            row_index=row["row"],
            repeat=row["repeat"],
            seed=row["seed"],
            row=text,
        )

    @property
    def recipe(self) -> Recipe:
        """With what, in batches of the shape that it was made in."""
        recipe = recipe_for(self.job.recipe, own_recipe(self.job.recipe, self.row))
        images = self.row["batch_images"] or self.job.recipe.batch_images
        return recipe.model_copy(update={"batch_images": images})
