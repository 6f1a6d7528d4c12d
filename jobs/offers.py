"""What a catalog offers, for people: each model with what fits it and what it takes."""

from typing import get_args

from pydantic import Field

from jobs.accelerators import AcceleratorEntry
from jobs.architectures import Parameters
from jobs.catalog import Catalog
from jobs.entries import ModelEntry, StyleEntry
from jobs.filters import FilterEntry, Kind, Policy
from jobs.footprint import Footprint, footprint
from jobs.recipe import Commercial, Dtype, Frozen


class ModelOffer(ModelEntry):
    """A base model, what may be combined with it, and its size in memory."""

    title: str = Field(description="Of its architecture")
    family: str
    dtypes: tuple[Dtype, ...] = Field(strict=False)
    accelerators: tuple[str, ...] = Field(strict=False, description="Those that fit it")
    styles: tuple[str, ...] = Field(strict=False)
    vaes: tuple[str, ...] = Field(strict=False)
    filters: dict[str, str] = Field(description="Those that can score its pictures, and how")
    parameters: Parameters | None = Field(description="Null where nobody counted them")
    footprint: Footprint | None = Field(description="With its own accelerator, in its own dtype")


class AcceleratorOffer(AcceleratorEntry):
    """A few-step adapter and the models it fits."""

    models: tuple[str, ...] = Field(strict=False)


class StyleOffer(StyleEntry):
    """A style and the models it fits."""

    models: tuple[str, ...] = Field(strict=False)


class FilterOffer(Frozen):
    """A filter, what its score means, and the limits that count where a job says none."""

    kind: Kind
    title: str = Field(description="What its score means")
    at_least: float | None = Field(description="Null: none, unless the job says one")
    at_most: float | None
    policies: tuple[Policy, ...] = Field(
        strict=False, description="What may become of a picture beyond the limit"
    )
    models: tuple[str, ...] = Field(strict=False, description="Those whose pictures it can score")
    size: int = Field(description="Pixels of those pictures, both ways; 0: any")
    licence: str = Field(description="Of its weights, where it has any")
    commercial: Commercial


def model_offers(catalog: Catalog) -> dict[str, ModelOffer]:
    """Every model by name."""
    return {name: _model(catalog, entry) for name, entry in catalog.models.items()}


def accelerator_offers(catalog: Catalog) -> dict[str, AcceleratorOffer]:
    """Every accelerator by name."""
    computed = set(AcceleratorEntry.model_computed_fields)
    return {
        name: AcceleratorOffer.model_validate(
            {**entry.model_dump(exclude=computed), "models": _models(catalog, entry.architectures)}
        )
        for name, entry in catalog.accelerators.items()
    }


def style_offers(catalog: Catalog) -> dict[str, StyleOffer]:
    """Every style by name."""
    return {
        name: StyleOffer.model_validate(
            {**entry.model_dump(), "models": _models(catalog, entry.architectures)}
        )
        for name, entry in catalog.styles.items()
    }


def filter_offers(catalog: Catalog) -> dict[str, FilterOffer]:
    """Every filter by name; what it is made of is the operator's and the renderers' business."""
    return {name: _filter(catalog, entry) for name, entry in catalog.filters.items()}


def _filter(catalog: Catalog, entry: FilterEntry) -> FilterOffer:
    told = FilterOffer.model_fields.keys() & FilterEntry.model_fields.keys()
    # A kind lets each policy be: `drop` and `retry` need a limit, the job's if it has none.
    return FilterOffer(
        **entry.model_dump(include=set(told)),
        policies=get_args(Policy),
        models=_models(catalog, entry.architectures)
        if entry.architectures
        else tuple(catalog.models),
    )


def _model(catalog: Catalog, entry: ModelEntry) -> ModelOffer:
    architecture = catalog.architectures[entry.architecture]
    own = catalog.accelerators.get(entry.accelerator or "")
    counted = architecture.parameters
    fitting = {
        table: tuple(
            name
            for name, one in getattr(catalog, table).items()
            if entry.architecture in one.architectures
        )
        for table in ("accelerators", "styles", "vaes")
    }
    return ModelOffer.model_validate(
        {
            **entry.model_dump(),
            **fitting,
            "filters": {
                name: one.title
                for name, one in catalog.filters.items()
                if not one.architectures or entry.architecture in one.architectures
            },
            "title": architecture.title,
            "family": architecture.family,
            "dtypes": architecture.dtypes,
            "parameters": counted,
            "footprint": footprint(counted, own.parameters if own else 0, entry.dtype)
            if counted
            else None,
        }
    )


def _models(catalog: Catalog, architectures: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        name for name, model in catalog.models.items() if model.architecture in architectures
    )
