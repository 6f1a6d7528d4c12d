"""What a catalog offers, for people: each model with what fits it and what it takes."""

from pydantic import Field

from jobs.accelerators import AcceleratorEntry
from jobs.architectures import Parameters
from jobs.catalog import Catalog
from jobs.entries import ModelEntry, StyleEntry
from jobs.footprint import Footprint, footprint
from jobs.recipe import Dtype


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
