"""What a comparison measures: a plan of grids, read from TOML and spread out into rows."""

import tomllib
from collections import Counter
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from jobs.errors import InvalidInput
from jobs.recipe import Frozen, Name, RecipeRequest, Sampler, StyleWeight
from jobs.samplers import SAMPLERS

#: Rows of one comparison. Each is a job, and a line of a table that somebody must read.
ROWS_MAX = 200
SHIPPED = "comparison.toml"


class Row(Frozen):
    """One line of the table: how its pictures are made."""

    name: str
    #: The name without its steps: rows of one group are one line of the plot.
    group: str
    recipe: RecipeRequest


class Grid(Frozen):
    """A row for each combination of these lists; None in one is the recipe's default."""

    name: str = Field(default="", max_length=80)
    accelerator: Name | None = None
    sampler: tuple[Sampler | None, ...] = Field(default=(None,), min_length=1, strict=False)
    steps: tuple[int | None, ...] = Field(default=(None,), min_length=1, strict=False)
    guidance: tuple[float | None, ...] = Field(default=(None,), min_length=1, strict=False)
    styles: tuple[dict[Name, float], ...] = Field(default=({},), min_length=1, strict=False)

    @property
    def count(self) -> int:
        """How many rows it makes."""
        return len(self.styles) * len(self.sampler) * len(self.guidance) * len(self.steps)

    def rows(self, model: str) -> list[Row]:
        """Its rows, the last list changing fastest."""
        return [
            Row(
                name=self._name(sampler, steps, guidance, mix),
                group=self._name(sampler, None, guidance, mix),
                recipe=RecipeRequest(
                    model=model,
                    accelerator=self.accelerator,
                    sampler=sampler,
                    steps=steps,
                    guidance=guidance,
                    styles=tuple(StyleWeight(name=name, weight=w) for name, w in mix.items()),
                ),
            )
            for mix, sampler, guidance, steps in product(
                self.styles, self.sampler, self.guidance, self.steps
            )
        ]

    def _name(
        self,
        sampler: Sampler | None,
        steps: int | None,
        guidance: float | None,
        mix: dict[str, float],
    ) -> str:
        parts = [self.name or self.accelerator or "own accelerator"]
        parts += [f"{name} {weight:g}" for name, weight in mix.items()]
        parts += [SAMPLERS[sampler].title.partition(" (")[0].partition(",")[0]] if sampler else []
        parts += [f"guidance {guidance:g}"] if guidance is not None else []
        parts += [f"{steps} step" + "s" * (steps != 1)] if steps is not None else []
        return ", ".join(parts)


class Plan(Frozen):
    """All grids, and which row the others are compared with."""

    reference: int = Field(default=0, ge=0)
    rows: tuple[Grid, ...] = Field(min_length=1, strict=False)

    def spread(self, model: str) -> list[Row]:
        """Every row, for this base model; the plan's names are different from one another."""
        return [row for grid in self.rows for row in grid.rows(model)]

    @model_validator(mode="after")
    def _is_one_table(self) -> Self:
        # Counted before they are made: four lists of a thousand are 10^12.
        count = sum(grid.count for grid in self.rows)
        if count > ROWS_MAX:
            raise ValueError(f"{count} rows, at most {ROWS_MAX}")
        names = [row.name for row in self.spread("tiny")]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"two rows are called {twice[0]!r}; give their tables names")
        if self.reference >= len(names):
            raise ValueError(f"reference is {self.reference}, but there are {len(names)} rows")
        return self


def read_plan(path: Path | None = None) -> Plan:
    """The plan in this file, or the shipped one; raises InvalidInput naming file and field."""
    try:
        if path is None:
            text = resources.files("jobs").joinpath(SHIPPED).read_text("utf-8")
        else:
            text = path.read_text("utf-8")
        return Plan.model_validate(tomllib.loads(text))
    except OSError as error:
        raise _bad(path, f"it cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise _bad(path, _first(error.errors()[0])) from error
    # Not TOMLDecodeError alone: a number of 5,000 digits is a plain ValueError.
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"it is no TOML: {error}") from error


def _bad(path: Path | None, what: str) -> InvalidInput:
    return InvalidInput(
        f"the plan of the comparison will not do: {what}"[:400],
        where=str(path),
        remedy="docs/comparison.md tells what a plan may say",
    )


def _first(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}" if place else str(error["msg"])
