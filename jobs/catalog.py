"""The catalog: which models, accelerators and styles there are, and what each allows."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from jobs.errors import BadConfiguration, InvalidInput
from jobs.recipe import Adapter, Dtype, Frozen, Recipe, RecipeRequest, Sampler, Weights

Entry = TypeVar("Entry")

#: Steps of a sampler without an accelerator.
TEACHER_STEPS = (1, 100)
#: Guidance of a sampler without an accelerator.
TEACHER_GUIDANCE_MAX = 20.0


class ModelEntry(Frozen):
    """A base model: where it is, and the sizes, in pixels, that it can make."""

    family: str = Field(pattern="^(sd|sdxl)$")
    source: str = Field(pattern="^(builtin|path|hub):.+$")
    revision: str = ""
    sha256: str = ""
    licence: str
    width: int
    height: int
    size_multiple: int
    size_min: int
    size_max: int
    dtype: Dtype
    batch_images: int = Field(ge=1, le=1024)
    accelerator: str | None = None
    sampler: Sampler
    steps: int
    guidance: float


class AdapterEntry(Frozen):
    """What accelerators and styles have in common."""

    models: tuple[str, ...] = Field(strict=False)
    source: str = Field(pattern="^(builtin|path|hub):.+$")
    revision: str = ""
    sha256: str = ""
    licence: str
    weight: float


class AcceleratorEntry(AdapterEntry):
    """A few-step adapter: its sampler, and the steps and guidance it was made for."""

    sampler: Sampler
    sampler_settings: dict[str, int | float | bool | str] = Field(default_factory=dict)
    steps_min: int
    steps_max: int
    steps: int
    guidance_max: float
    guidance: float


class StyleEntry(AdapterEntry):
    """A style LoRA; `weight` is its default lambda."""


class Catalog(Frozen):
    """Every model, accelerator and style by name."""

    models: dict[str, ModelEntry]
    accelerators: dict[str, AcceleratorEntry]
    styles: dict[str, StyleEntry] = Field(default_factory=dict)

    def resolve(self, request: RecipeRequest) -> Recipe:
        """Fill in a request and check it; raises InvalidInput naming field and remedy."""
        model = _entry(self.models, request.model, "model")
        name = request.accelerator or model.accelerator or "none"
        accelerator = None if name == "none" else _entry(self.accelerators, name, "accelerator")
        if accelerator and request.model not in accelerator.models:
            raise InvalidInput(
                f"accelerator {name!r} was not made for model {request.model!r}",
                where="accelerator",
                remedy=f"it fits: {', '.join(accelerator.models)}",
            )
        width, height = _sizes(model, request)
        return Recipe(
            model=request.model,
            family=model.family,
            base=_weights(model),
            accelerator=_adapter(name, accelerator, accelerator.weight) if accelerator else None,
            styles=self._styles(request),
            sampler=_sampler(model, accelerator, request),
            sampler_settings=dict(accelerator.sampler_settings) if accelerator else {},
            steps=_steps(model, accelerator, request),
            guidance=_guidance(model, accelerator, request),
            width=width,
            height=height,
            dtype=request.dtype or model.dtype,
            batch_images=model.batch_images,
        )

    def _styles(self, request: RecipeRequest) -> tuple[Adapter, ...]:
        names = [style.name for style in request.styles]
        for name in names:
            if names.count(name) > 1:
                raise InvalidInput(
                    f"style {name!r} is given twice", where="styles", remedy="add up its weights"
                )
        found = []
        for style in request.styles:
            entry = _entry(self.styles, style.name, "style")
            if request.model not in entry.models:
                raise InvalidInput(
                    f"style {style.name!r} was not made for model {request.model!r}",
                    where="styles",
                    remedy=f"it fits: {', '.join(entry.models)}",
                )
            found.append(_adapter(style.name, entry, style.weight))
        return tuple(found)


def load_catalog(extra: Path | None = None) -> Catalog:
    """The shipped catalog, with the operator's entries over it.

    Raises BadConfiguration naming the file where that is missing or wrong.
    """
    shipped = resources.files("jobs").joinpath("catalog.toml").read_text("utf-8")
    tables = tomllib.loads(shipped)
    if extra is not None:
        _merge(tables, extra)
    try:
        return Catalog.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadConfiguration(
            f"{field}: {first['msg']}", where=str(extra or "jobs/catalog.toml")
        ) from error


def _merge(tables: dict[str, Any], extra: Path) -> None:
    try:
        more = tomllib.loads(extra.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfiguration(
            f"the catalog cannot be read: {error}", where=str(extra), remedy="see FEWSTEP_CATALOG"
        ) from error
    for table, entries in more.items():
        for entry in entries.values():
            _anchor(entry, extra.parent)
        tables.setdefault(table, {}).update(entries)


def _anchor(entry: object, folder: Path) -> None:
    """Make a `path:` source absolute: it is meant from the folder of its catalog."""
    if isinstance(entry, dict) and str(entry.get("source", "")).startswith("path:"):
        entry["source"] = f"path:{(folder / entry['source'][5:]).resolve()}"


def _entry(entries: dict[str, Entry], name: str, kind: str) -> Entry:
    if name not in entries:
        raise InvalidInput(
            f"there is no {kind} {name!r}",
            where=kind,
            remedy=f"known: {', '.join(sorted(entries)) or 'none'}",
        )
    return entries[name]


def _weights(entry: ModelEntry | AdapterEntry) -> Weights:
    return Weights(source=entry.source, revision=entry.revision, sha256=entry.sha256)


def _adapter(name: str, entry: AdapterEntry, weight: float) -> Adapter:
    return Adapter(name=name, weights=_weights(entry), weight=weight)


def _sampler(
    model: ModelEntry, accelerator: AcceleratorEntry | None, request: RecipeRequest
) -> Sampler:
    if accelerator is None:
        return request.sampler or model.sampler
    if request.sampler not in (None, accelerator.sampler):
        raise InvalidInput(
            f"this accelerator samples with {accelerator.sampler!r}, not {request.sampler!r}",
            where="sampler",
            remedy="leave the sampler out, or use accelerator 'none'",
        )
    return accelerator.sampler


def _steps(model: ModelEntry, accelerator: AcceleratorEntry | None, request: RecipeRequest) -> int:
    low, high = (accelerator.steps_min, accelerator.steps_max) if accelerator else TEACHER_STEPS
    steps = request.steps
    if steps is None:
        return accelerator.steps if accelerator else model.steps
    if not low <= steps <= high:
        raise InvalidInput(
            f"{steps} steps are outside what this recipe allows",
            where="steps",
            remedy=f"choose {low} to {high}"
            + ("" if not accelerator else ", or accelerator 'none' for the many-step teacher"),
        )
    return steps


def _guidance(
    model: ModelEntry, accelerator: AcceleratorEntry | None, request: RecipeRequest
) -> float:
    high = accelerator.guidance_max if accelerator else TEACHER_GUIDANCE_MAX
    guidance = request.guidance
    if guidance is None:
        return accelerator.guidance if accelerator else model.guidance
    if not 0.0 <= guidance <= high:
        raise InvalidInput(
            f"guidance {guidance:g} is outside what this recipe allows",
            where="guidance",
            remedy=f"choose 0 to {high:g}; at 1 or below it is off and costs one UNet call a step",
        )
    return guidance


def _sizes(model: ModelEntry, request: RecipeRequest) -> tuple[int, int]:
    return (
        _size("width", model.width if request.width is None else request.width, model),
        _size("height", model.height if request.height is None else request.height, model),
    )


def _size(field: str, value: int, model: ModelEntry) -> int:
    low, high, step = model.size_min, model.size_max, model.size_multiple
    if low <= value <= high and value % step == 0:
        return value
    nearest = min(max((value + step // 2) // step * step, low), high)
    raise InvalidInput(
        f"{value} is not a {field} this model can make",
        where=field,
        remedy=f"a multiple of {step} from {low} to {high}; the nearest is {nearest}",
    )
