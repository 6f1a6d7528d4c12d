"""Checking what rows change of their job's recipe, and what that costs."""

from collections.abc import Sequence

from jobs.again import full_request_of
from jobs.catalog import Catalog
from jobs.errors import InvalidInput
from jobs.filters import FilterRequest, resolve_filters
from jobs.job import Job
from jobs.recipe import Recipe, RecipeRequest, RowRecipe
from jobs.row_recipe import recipe_for
from jobs.rows import Row

#: Different settings that are remembered; rows may have more.
KEPT = 10_000


def device_seconds(recipe: Recipe) -> float:
    """A rough guess of an image's device time, for recipes of which nothing was measured."""
    megapixels = recipe.width * recipe.height / 1e6
    # Decoding costs about as much as two UNet calls of the same size.
    return 0.05 * megapixels * (recipe.unet_calls + 2)


class RowRecipes:
    """The recipes of a job's rows: each is checked as a job's is, once."""

    def __init__(
        self,
        catalog: Catalog,
        request: RecipeRequest,
        filters: Sequence[FilterRequest] = (),
        recipe: Recipe | None = None,
    ) -> None:
        """`filters`: what must be able to score them; `recipe`: what was made of the request.

        Raises InvalidInput for what is no recipe.
        """
        self._catalog, self._request, self._filters = catalog, request, filters
        #: Of every row that changes nothing.
        self.recipe = recipe or catalog.resolve(request)
        self._costs: dict[RowRecipe | None, float] = {None: device_seconds(self.recipe)}
        self._seen: set[RowRecipe | None] = set()
        self._cost = 0.0
        self._rows = 0

    @classmethod
    def of_job(cls, catalog: Catalog, job: Job) -> "RowRecipes":
        """Those of rows that are added to a job, whatever has become of the catalog since."""
        filters = [FilterRequest(**one.model_dump(exclude={"kind"})) for one in job.filters]
        return cls(catalog, full_request_of(catalog, job.recipe), filters, job.recipe)

    @property
    def count(self) -> int:
        """Different settings that rows have of their own, up to `KEPT`."""
        return len(self._seen - {None})

    @property
    def cost(self) -> float:
        """Device time of the rows' images over that of as many of the job's own recipe."""
        whole = self._rows * self._costs[None]
        return self._cost / whole if whole else 1.0

    def check(self, row: Row, where: str) -> None:
        """Raise InvalidInput where the row's own settings cannot be rendered."""
        self._cost_of(row.recipe, where)

    def count_in(self, row: Row, where: str) -> None:
        """Check a row, and count what its images cost."""
        self._cost += self._cost_of(row.recipe, where)
        self._rows += 1
        if len(self._seen) < KEPT:
            self._seen.add(row.recipe)

    def _cost_of(self, own: RowRecipe | None, where: str) -> float:
        if own in self._costs:
            return self._costs[own]
        cost = device_seconds(self._resolved(own, where))
        if len(self._costs) < KEPT:
            self._costs[own] = cost
        return cost

    def _resolved(self, own: RowRecipe | None, where: str) -> Recipe:
        found = recipe_for(self.recipe, own)
        changed = own.given if own else {}
        try:
            asked = self._catalog.resolve(self._request.model_copy(update=changed))
            resolve_filters(self._catalog.filters, self._filters, asked)
            known = self._catalog.resolve(self._request)
        except InvalidInput as error:
            column = error.where or "row"
            told = f"; or leave the column out: --drop {column}" if column in changed else ""
            raise InvalidInput(
                error.message, where=f"{where}, {column}", remedy=f"{error.remedy or ''}{told}"
            ) from error
        if known != self.recipe:
            raise InvalidInput(
                "the job's model or accelerator is another in the catalog since it was submitted",
                where=where,
                remedy="leave the settings of its own out, or submit it as a job",
            )
        if asked != found:
            raise InvalidInput(
                "the job's eta goes with its own sampler alone",
                where=f"{where}, sampler",
                remedy="leave eta out of the job, or the sampler out of its rows",
            )
        return found
