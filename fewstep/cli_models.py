"""`fewstep models`: what can be rendered, with what, under which terms, in how much memory."""

from typing import Annotated, Any

import typer

from fewstep.options import AsJson

Served = Annotated[
    bool, typer.Option("--served", help="As the API has them, instead of this machine's catalog.")
]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model, in full.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (models, accelerators, styles, filters):
        app.command()(command)


def models(name: Name = None, served: Served = False, *, json: AsJson = False) -> None:
    """List the models of the catalog, or show one with its accelerators, licences and sizes."""
    from fewstep.report import as_json
    from jobs.errors import NotFound

    offers = _offers("models", served)
    if name is None:
        if json:
            as_json({one: offer.model_dump(mode="json") for one, offer in offers.items()})
        else:
            _show_all(offers)
        return
    if name not in offers:
        raise NotFound(
            f"there is no model {name!r}", where="NAME", remedy=f"known: {', '.join(offers)}"
        )
    known = _offers("accelerators", served)
    fitting = {one: known[one] for one in offers[name].accelerators}
    if json:
        as_json(
            offers[name].model_dump(mode="json")
            | {"accelerators": {one: a.model_dump(mode="json") for one, a in fitting.items()}}
        )
    else:
        _show_one(name, offers[name], fitting)


def accelerators(served: Served = False, *, json: AsJson = False) -> None:
    """List the few-step adapters: the models each fits, its steps, guidance and licence."""
    from fewstep.report import as_json

    offers = _offers("accelerators", served)
    if json:
        as_json({one: offer.model_dump(mode="json") for one, offer in offers.items()})
    else:
        _show_accelerators(offers)


def styles(served: Served = False, *, json: AsJson = False) -> None:
    """List the style LoRAs: the models each fits, its usual weight and its licence."""
    from fewstep.report import as_json, show_table

    offers = _offers("styles", served)
    if json:
        as_json({one: offer.model_dump(mode="json") for one, offer in offers.items()})
        return
    rows = [
        (name, "-" if one.weight is None else f"{one.weight:g}", ", ".join(one.models), _terms(one))
        for name, one in offers.items()
    ]
    show_table(("style", "weight", "models", "licence"), rows)


def filters(served: Served = False, *, json: AsJson = False) -> None:
    """List the filters that a job may name: what a score means, the default limit, the models."""
    from fewstep.report import as_json, show_table

    offers = _offers("filters", served)
    if json:
        as_json({one: offer.model_dump(mode="json") for one, offer in offers.items()})
        return
    every = _offers("models", served).keys()
    rows = [
        (
            name,
            _limits(one),
            "any" if every == {*one.models} else ", ".join(one.models) or "none",
            "/".join(one.policies),
            one.title or one.kind,
        )
        for name, one in offers.items()
    ]
    show_table(("filter", "limit", "models", "policies", "score"), rows)


def _offers(kind: str, served: bool) -> dict[str, Any]:
    """What the catalog, or the API, has of a kind, by name."""
    from fewstep.configuration import read_settings
    from jobs import offers
    from jobs.catalog import load_catalog

    made: dict[str, tuple[Any, Any]] = {
        "models": (offers.ModelOffer, offers.model_offers),
        "accelerators": (offers.AcceleratorOffer, offers.accelerator_offers),
        "styles": (offers.StyleOffer, offers.style_offers),
        "filters": (offers.FilterOffer, offers.filter_offers),
    }
    value, of_catalog = made[kind]
    if not served:
        return dict(of_catalog(load_catalog(read_settings().catalog)))
    from fewstep.cli_jobs import client_here

    with client_here() as client:
        found = getattr(client, kind)()
    return {name: _read(value, fields) for name, fields in found.items()}


def _read(value: Any, fields: dict[str, Any]) -> Any:
    """A value from JSON, as the API writes it: with what is only computed."""
    import json

    own = {name: one for name, one in fields.items() if name not in value.model_computed_fields}
    return value.model_validate_json(json.dumps(own))


def _show_all(offers: dict[str, Any]) -> None:
    from fewstep.report import show_table

    show_table(
        ("model", "architecture", "size", "M parameters", "GB", "accelerator", "licence"),
        [
            (
                name,
                one.architecture,
                f"{one.width}x{one.height}",
                _millions(one.parameters.total) if one.parameters else "-",
                _gigabytes(one.footprint.engine_bytes) if one.footprint else "-",
                one.accelerator or "-",
                _terms(one),
            )
            for name, one in offers.items()
        ],
    )


def _show_one(name: str, offer: Any, accelerators: dict[str, Any]) -> None:
    from fewstep.report import show_pairs

    pairs = {
        "architecture": f"{offer.architecture} ({offer.title})",
        "source": f"{offer.source} {offer.file} {offer.revision}".strip(),
        "licence": _terms(offer),
        "sizes": f"{offer.size_min} to {offer.size_max} in steps of {offer.size_multiple}; "
        f"{offer.width}x{offer.height} unless asked",
        "precision": f"{offer.dtype}; also: "
        + (", ".join(one for one in offer.dtypes if one != offer.dtype) or "none"),
        "styles": ", ".join(offer.styles) or "none",
        "filters": ", ".join(offer.filters) or "none",
        "autoencoders": ", ".join(("own", *offer.vaes)),
    }
    show_pairs(name, pairs | _sizes(offer))
    _show_accelerators(accelerators)


def _show_accelerators(accelerators: dict[str, Any]) -> None:
    from fewstep.report import show_table

    rows = [
        (
            one,
            entry.sampler,
            _span(entry.steps_min, entry.steps_max, entry.steps),
            _span(entry.guidance_min, entry.guidance_max, entry.guidance),
            "yes" if entry.negative_prompt else "no",
            _terms(entry),
        )
        for one, entry in accelerators.items()
    ]
    show_table(("accelerator", "sampler", "steps", "guidance", "negative prompts", "licence"), rows)


def _sizes(offer: Any) -> dict[str, str]:
    """The memory figures, in millions of parameters and gigabytes of 10^9 bytes."""
    counted, taken = offer.parameters, offer.footprint
    if counted is None or taken is None:
        return {"parameters": "nobody counted them"}
    shown = {
        "parameters": f"{_millions(counted.total)} M: UNet {_millions(counted.unet)}, "
        f"text {_millions(counted.text)}, autoencoder {_millions(counted.vae)}",
        "fused engine": f"{_gigabytes(taken.engine_bytes)} GB in {offer.dtype}, as the base alone",
    }
    if taken.adapter_parameters:
        shown |= {
            "adapter": f"{_millions(taken.adapter_parameters)} M, "
            f"{_gigabytes(taken.adapter_bytes)} GB in half precision",
            "to distil": f"{_gigabytes(taken.lora_training_bytes)} GB of state as a LoRA, "
            f"{_gigabytes(taken.full_training_bytes)} GB as a whole model "
            f"({taken.training_share:.0%}); activations not counted",
        }
    return shown


def _limits(offer: Any) -> str:
    """As `--filter NAME` would have it: `>=4`."""
    signs = ((">=", offer.at_least), ("<=", offer.at_most))
    return " ".join(f"{sign}{limit:g}" for sign, limit in signs if limit is not None) or "-"


def _span(low: float, high: float, usual: float) -> str:
    return f"{usual:g}" if low == high else f"{usual:g} ({low:g} to {high:g})"


def _terms(entry: Any) -> str:
    """The licence and what it says of commercial use."""
    return f"{entry.licence}, commercial use {entry.commercial}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f}"
