"""The catalog: which models, accelerators and styles there are, and what each allows."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from jobs.accelerators import AcceleratorEntry
from jobs.architectures import ArchitectureEntry
from jobs.choices import (
    choose_dtype,
    choose_guidance,
    choose_sampler,
    choose_sizes,
    choose_steps,
)
from jobs.entries import AdapterEntry, ModelEntry, StyleEntry, VaeEntry
from jobs.errors import BadConfiguration, InvalidInput
from jobs.filters import FilterEntry
from jobs.licences import check_consent, licence_of
from jobs.recipe import Adapter, Frozen, Licence, Recipe, RecipeRequest, StyleWeight
from jobs.samplers import settings_with_eta

Entry = TypeVar("Entry")

SHIPPED = ("architectures.toml", "catalog.toml", "accelerators.toml")
"""Files of this package that make the catalog; an operator's file has the same tables."""


class Catalog(Frozen):
    """Every architecture, model, autoencoder, accelerator, style and filter by name."""

    architectures: dict[str, ArchitectureEntry]
    models: dict[str, ModelEntry]
    accelerators: dict[str, AcceleratorEntry]
    vaes: dict[str, VaeEntry] = Field(default_factory=dict)
    styles: dict[str, StyleEntry] = Field(default_factory=dict)
    filters: dict[str, FilterEntry] = Field(default_factory=dict)
    #: The operator agreed to licences that forbid commercial use.
    allow_noncommercial: bool = False

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, model in self.models.items():
            _must_be(self.architectures, model.architecture, f"models.{name}.architecture")
            if model.vae:
                _must_be(self.vaes, model.vae, f"models.{name}.vae")
            if model.accelerator:
                _must_be(self.accelerators, model.accelerator, f"models.{name}.accelerator")
        for table in ("accelerators", "styles", "vaes", "filters"):
            for name, entry in getattr(self, table).items():
                for one in entry.architectures:
                    _must_be(self.architectures, one, f"{table}.{name}.architectures")
        return self

    def resolve(self, request: RecipeRequest) -> Recipe:
        """Fill in a request and check it; raises InvalidInput naming field and remedy."""
        model = _entry(self.models, request.model, "model")
        name = request.accelerator or model.accelerator or "none"
        accelerator = (
            None if name == "none" else _entry(self.accelerators, name, "accelerator", model)
        )
        if accelerator:
            _check_fit("accelerator", name, accelerator, model, request.model)
        architecture = self.architectures[model.architecture]
        vae_name, vae = self._vae(model, request)
        styles = self._styles(model, accelerator, request)
        licences = self._licences(request, name, accelerator, vae_name)
        check_consent(licences, consented=self.allow_noncommercial)
        sampler = choose_sampler(model, accelerator, request)
        width, height = choose_sizes(model, request)
        dtype = choose_dtype(model, architecture.dtypes, request)
        return Recipe(
            model=request.model,
            family=architecture.family,
            architecture=model.architecture,
            fingerprint=architecture.fingerprint,
            base=model.weights,
            config=model.configuration,
            vae=vae.weights if vae else None,
            vae_float32=dtype in architecture.vae_float32,
            accelerator=_adapter(name, accelerator, accelerator.weight) if accelerator else None,
            styles=styles,
            sampler=sampler,
            sampler_settings=settings_with_eta(
                sampler, accelerator.sampler_settings if accelerator else {}, request.eta
            ),
            steps=choose_steps(model, accelerator, sampler, request),
            guidance=choose_guidance(model, accelerator, request),
            width=width,
            height=height,
            dtype=dtype,
            batch_images=model.batch_images,
            licences=licences,
        )

    def _vae(self, model: ModelEntry, request: RecipeRequest) -> tuple[str, VaeEntry | None]:
        name = request.vae or model.vae
        if not name or name == "own":
            return "", None
        entry = _entry(self.vaes, name, "vae", model)
        _check_fit("vae", name, entry, model, request.model)
        return name, entry

    def _styles(
        self, model: ModelEntry, accelerator: AcceleratorEntry | None, request: RecipeRequest
    ) -> tuple[Adapter, ...]:
        names = [style.name for style in request.styles]
        for name in names:
            if names.count(name) > 1:
                raise InvalidInput(
                    f"style {name!r} is given twice", where="styles", remedy="add up its weights"
                )
        found = []
        for style in request.styles:
            self._check_style(style.name, accelerator)
            entry = _entry(self.styles, style.name, "style", model)
            _check_fit("style", style.name, entry, model, request.model)
            found.append(_adapter(style.name, entry, _style_weight(style, entry, accelerator)))
        return tuple(found)

    def _check_style(self, name: str, accelerator: AcceleratorEntry | None) -> None:
        """One engine has one accelerator: a second one as a style would add up their paths."""
        taken = name in self.accelerators and name not in self.styles
        if not taken and name in self.styles and accelerator:
            same = {(one.source, one.file) for one in self.accelerators.values()}
            taken = (self.styles[name].source, self.styles[name].file) in same
        if taken:
            raise InvalidInput(
                f"{name!r} is an accelerator, and a recipe has one accelerator",
                where="styles",
                remedy="name it as the accelerator, alone",
            )

    def _licences(
        self,
        request: RecipeRequest,
        accelerator: str,
        entry: AcceleratorEntry | None,
        vae: str,
    ) -> tuple[Licence, ...]:
        found = [licence_of("model", request.model, self.models[request.model])]
        if vae:
            found.append(licence_of("vae", vae, self.vaes[vae]))
        if entry:
            found.append(licence_of("accelerator", accelerator, entry))
        found += [licence_of("style", one.name, self.styles[one.name]) for one in request.styles]
        return tuple(found)


def load_catalog(extra: Path | None = None, *, allow_noncommercial: bool = False) -> Catalog:
    """The shipped catalog, with the operator's entries over it.

    Raises BadConfiguration naming the file where that is missing or wrong.
    """
    tables: dict[str, Any] = {}
    for name in SHIPPED:
        tables |= tomllib.loads(resources.files("jobs").joinpath(name).read_text("utf-8"))
    if extra is not None:
        _merge(tables, extra)
    try:
        return Catalog.model_validate({**tables, "allow_noncommercial": allow_noncommercial})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BadConfiguration(
            f"{field}: {message}" if field else message, where=str(extra or "the shipped catalog")
        ) from error


def _merge(tables: dict[str, Any], extra: Path) -> None:
    try:
        more = tomllib.loads(extra.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfiguration(
            f"the catalog cannot be read: {error}", where=str(extra), remedy="see FEWSTEP_CATALOG"
        ) from error
    for table, entries in more.items():
        if not isinstance(entries, dict):
            raise BadConfiguration(
                f"{table!r} stands outside a table",
                where=str(extra),
                remedy="entries look like [models.NAME], [accelerators.NAME] or [styles.NAME]",
            )
        for entry in entries.values():
            _anchor(entry, extra.parent)
        tables.setdefault(table, {}).update(entries)


def _anchor(entry: object, folder: Path) -> None:
    """Make `path:` sources absolute: they are meant from the folder of their catalog."""
    for field in ("source", "config") if isinstance(entry, dict) else ():
        given = str(entry.get(field, ""))  # type: ignore[attr-defined]
        if given.startswith("path:"):
            entry[field] = f"path:{(folder / given[5:]).resolve()}"  # type: ignore[index]


def _must_be(known: dict[str, Any], name: str, where: str) -> None:
    if name not in known:
        raise ValueError(f"{where}: there is no {name!r}; known: {', '.join(sorted(known))}")


def _entry(
    entries: dict[str, Entry], name: str, kind: str, model: ModelEntry | None = None
) -> Entry:
    if name in entries:
        return entries[name]
    known = [
        other
        for other, entry in sorted(entries.items())
        if model is None or model.architecture in getattr(entry, "architectures", ())
    ]
    raise InvalidInput(
        f"there is no {kind} {name!r}",
        where=kind,
        remedy=("known: " if model is None else "for this model there is: ")
        + (", ".join(known) or "none"),
    )


def _check_fit(
    kind: str, name: str, entry: AdapterEntry | VaeEntry, model: ModelEntry, shown: str
) -> None:
    if model.architecture not in entry.architectures:
        raise InvalidInput(
            f"{kind} {name!r} was not made for model {shown!r}, whose architecture is "
            f"{model.architecture!r}",
            where="styles" if kind == "style" else kind,
            remedy=f"it fits: {', '.join(entry.architectures)}",
        )


def _style_weight(
    style: StyleWeight, entry: StyleEntry, accelerator: AcceleratorEntry | None
) -> float:
    """As asked, else the style's own, else as suits the accelerator, else 0.8."""
    for weight in (style.weight, entry.weight, accelerator.style_weight if accelerator else None):
        if weight is not None:
            return weight
    return 0.8


def _adapter(name: str, entry: AdapterEntry, weight: float) -> Adapter:
    return Adapter(
        name=name,
        weights=entry.weights,
        weight=weight,
        alpha=entry.alpha,
        layout=entry.layout,
        modules=entry.modules,
    )
