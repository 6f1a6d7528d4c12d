"""Filters: what a job asks of its pictures, and what the operator offers to ask."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from jobs.entries import DIGEST, FILE, SOURCE
from jobs.errors import InvalidInput
from jobs.recipe import Commercial, Frozen, Name, Recipe, Weights

#: `keep`: the score is a column, and the picture is marked where it misses the limit. `drop`: it
#: goes to the quarantine instead of the dataset. `retry`: the image is tried with its next seed.
Policy = Literal["keep", "drop", "retry"]
Kind = Literal["judge", "duplicate", "clip", "classifier", "aesthetic", "plugin"]
#: Filters of one job, and pictures that are made of one image at most.
MAX_FILTERS, MAX_TRIES = 16, 100
#: Of these kinds the weights are named by the operator.
_WITH_WEIGHTS = frozenset({"clip", "classifier", "aesthetic"})
PLUGIN = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$|^$"


class FilterRequest(Frozen):
    """One filter of a job, by its name in the catalog.

    A picture passes whose score is at least `at_least` and at most `at_most`. Without either, the
    catalog's own limits count.
    """

    name: Name
    policy: Policy = "keep"
    at_least: float | None = None
    at_most: float | None = None


class Wishes(Frozen):
    """How many pictures of each row a job is to have, and what is asked of them."""

    repeats: int = Field(default=1, ge=1, le=100_000)
    #: What is asked of every picture, and what becomes of one that does not pass.
    filters: tuple[FilterRequest, ...] = Field(default=(), max_length=MAX_FILTERS, strict=False)
    #: Pictures that are made of one image at most, where a filter says to try again.
    max_tries: int = Field(default=4, ge=1, le=MAX_TRIES)
    #: So many pictures of each row are to pass all filters that try again; in place of `repeats`.
    accept: int | None = Field(default=None, ge=1, le=100_000)

    @property
    def per_row(self) -> int:
        """Images of each row."""
        return self.accept or self.repeats

    @property
    def turns_away(self) -> bool:
        """Whether any filter does more than mark."""
        return any(one.policy != "keep" for one in self.filters)

    def settled(self, filters: Sequence["JobFilter"]) -> dict[str, Any]:
        """What of it stands in the job, with the filters as the catalog has them."""
        return {
            "repeats": self.per_row,
            "filters": tuple(filters),
            "max_tries": self.max_tries,
            "accept": self.accept,
        }

    @model_validator(mode="after")
    def _agree(self) -> Self:
        names = [one.name for one in self.filters]
        for one in self.filters:
            if names.count(one.name) > 1:
                raise ValueError(f"the filter {one.name!r} is named twice")
            _check_order(one.at_least, one.at_most)
        if self.accept is not None and not any(one.policy == "retry" for one in self.filters):
            raise ValueError("accept needs a filter with the policy retry")
        if self.accept is not None and self.repeats not in (1, self.accept):
            raise ValueError("accept says how many pictures each row gets: leave repeats out")
        return self


class FilterEntry(Frozen):
    """A filter in the catalog: how pictures are scored, and the limits that a job may leave out."""

    kind: Kind
    #: What a score means, for people.
    title: str = Field(default="", max_length=300)
    #: The architectures whose pictures it can score; empty: any.
    architectures: tuple[str, ...] = Field(default=(), strict=False)
    #: The one size in pixels of pictures that it can score, both ways; 0: any.
    size: int = Field(default=0, ge=0)
    at_least: float | None = None
    at_most: float | None = None
    #: Weights: a folder of transformers' files, safetensors alone.
    source: str = Field(default="", pattern=f"{SOURCE}|^$")
    revision: str = ""
    sha256: str = Field(default="", pattern=DIGEST)
    #: Of `aesthetic`: the file in that folder with the linear layers behind CLIP's features.
    file: str = Field(default="", pattern=FILE)
    #: Of `classifier`: the class whose probability is the score.
    label: str = Field(default="", max_length=100)
    #: Of `plugin`: a function, or a class of callables, that every renderer can import.
    plugin: str = Field(default="", pattern=PLUGIN)
    licence: str = ""
    commercial: Commercial = "unknown"

    def fits(self, recipe: Recipe) -> bool:
        """Whether it can score this recipe's pictures."""
        sizes = {recipe.width, recipe.height}
        known = not self.architectures or recipe.architecture in self.architectures
        return known and (not self.size or sizes == {self.size})

    @property
    def weights(self) -> Weights:
        """Where its weights are and what they must be."""
        return Weights(source=self.source, revision=self.revision, sha256=self.sha256)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needs = {
            "source": self.kind in _WITH_WEIGHTS,
            "file": self.kind == "aesthetic",
            "label": self.kind == "classifier",
            "plugin": self.kind == "plugin",
        }
        for field, needed in needs.items():
            if needed != bool(getattr(self, field)):
                raise ValueError(f"{self.kind} {'needs' if needed else 'has no'} {field}")
        _check_order(self.at_least, self.at_most)
        return self


class JobFilter(Frozen):
    """A filter of an accepted job. What scores is looked up by name in each renderer's catalog."""

    name: Name
    kind: Kind
    policy: Policy
    at_least: float | None = None
    at_most: float | None = None

    def passes(self, score: float | None) -> bool:
        """Whether a picture of this score passes; one that could not be judged does."""
        if score is None:
            return True
        low = self.at_least is None or score >= self.at_least
        return low and (self.at_most is None or score <= self.at_most)


def resolve_filters(
    offered: Mapping[str, FilterEntry], asked: Sequence[FilterRequest], recipe: Recipe
) -> tuple[JobFilter, ...]:
    """The filters with their limits; raises InvalidInput naming the filter and the remedy."""
    return tuple(_resolved(offered, one, recipe) for one in asked)


def _resolved(
    offered: Mapping[str, FilterEntry], asked: FilterRequest, recipe: Recipe
) -> JobFilter:
    entry = offered.get(asked.name)
    fitting = [name for name, one in sorted(offered.items()) if one.fits(recipe)]
    if asked.name not in fitting or entry is None:
        raise InvalidInput(
            f"there is no filter {asked.name!r}"
            if entry is None
            else f"the filter {asked.name!r} cannot score such pictures ({recipe.model}, "
            f"{recipe.width} x {recipe.height})",
            where="filters",
            remedy=f"for these there is: {', '.join(fitting) or 'none'}; the operator's "
            "catalog may name more",
        )
    unset = asked.at_least is None and asked.at_most is None
    source: FilterRequest | FilterEntry = entry if unset else asked
    if asked.policy != "keep" and source.at_least is None and source.at_most is None:
        raise InvalidInput(
            f"the filter {asked.name!r} has no limit of its own, so {asked.policy!r} would turn "
            "nothing away",
            where="filters",
            remedy="say at_least or at_most (--filter 'NAME>=LIMIT:POLICY')",
        )
    if entry.kind == "duplicate" and not _is_distance(source):
        raise InvalidInput(
            f"the limit of {asked.name!r} is the least distance in bits, a whole number",
            where="filters",
            remedy="give at_least from 1 to 16, and no at_most",
        )
    return JobFilter(
        name=asked.name,
        kind=entry.kind,
        policy=asked.policy,
        at_least=source.at_least,
        at_most=source.at_most,
    )


def _is_distance(limits: "FilterRequest | FilterEntry") -> bool:
    least = limits.at_least
    return limits.at_most is None and least is not None and least in range(1, 17)


def _check_order(at_least: float | None, at_most: float | None) -> None:
    if at_least is not None and at_most is not None and at_least > at_most:
        raise ValueError("at_least must not exceed at_most")
