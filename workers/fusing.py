"""Fusing: every adapter of a recipe into its base, at once, in one order, in float32."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from jobs.errors import BadConfiguration
from jobs.recipe import Adapter, Recipe, canonical
from workers.adapter_file import AdapterFile, read_adapter

_TEXT = ("text_encoder", "text_encoder_2")


def adapters_of(recipe: Recipe) -> list[Adapter]:
    """A recipe's adapters in the order in which they are fused: the accelerator, then styles."""
    accelerator = [recipe.accelerator] if recipe.accelerator else []
    return [*accelerator, *canonical(recipe.styles)]


def fuse(pipeline: Any, adapters: list[Adapter], places: list[Path]) -> None:
    """`W + sum of weight x alpha/rank x B A`, in place, and no trace of the adapters' wrappers.

    Raises BadConfiguration where one of them does not fit. Weights go through `set_adapters` as
    one number each, and the scale of `fuse_lora` stays 1: a scale given there applies to whatever
    is active, and persists; a dictionary of weights would leave out the residual blocks. An
    engine is never unfused: a fresh base is exact, a subtraction is not.
    """
    if not adapters:
        return
    names = [f"adapter{number}" for number in range(len(adapters))]
    for name, adapter, place in zip(names, adapters, places, strict=True):
        _add(pipeline, name, adapter, read_adapter(place, adapter))
    pipeline.set_adapters(names, [adapter.weight for adapter in adapters])
    try:
        pipeline.fuse_lora(
            components=_parts_with(pipeline, names),
            adapter_names=names,
            lora_scale=1.0,
            safe_fusing=True,
        )
    except ValueError as error:
        raise BadConfiguration(
            f"the adapters cannot be fused: {error}"[:300],
            where=", ".join(adapter.name for adapter in adapters),
            remedy="one of them, or their sum with the base, is not a number",
        ) from error
    pipeline.unload_lora_weights()


def _add(pipeline: Any, name: str, adapter: Adapter, file: AdapterFile) -> None:
    where = f"{adapter.name} ({file.path})"
    try:
        pipeline.load_lora_weights(file.path.parent, weight_name=file.path.name, adapter_name=name)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BadConfiguration(
            f"the adapter does not fit this base: {error}"[:400],
            where=where,
            remedy="it was made for another architecture",
        ) from error
    layers = _layers(pipeline, name)
    _check_count(layers, adapter, file, where)
    _set_alpha([layer for found in layers.values() for layer in found], name, adapter)


def _check_count(
    layers: dict[str, list[Any]], adapter: Adapter, file: AdapterFile, where: str
) -> None:
    injected = sum(len(found) for found in layers.values())
    if injected != file.modules:
        # diffusers only warns when half of an adapter finds no place.
        raise BadConfiguration(
            f"{injected} of the adapter's {file.modules} modules found their place in the base",
            where=where,
            remedy="it was made for another architecture",
        )
    changed = len(layers.get("unet", []))
    if adapter.modules and changed != adapter.modules:
        raise BadConfiguration(
            f"it changes {changed} modules of the UNet, the catalog says {adapter.modules}",
            where=where,
            remedy="the file was cut, or is for another architecture: fetch it again",
        )


def _layers(pipeline: Any, name: str) -> dict[str, list[Any]]:
    """Net -> its layers that carry the adapter."""
    found = {}
    for part in ("unet", *_TEXT):
        net = getattr(pipeline, part, None)
        if net is not None:
            found[part] = [layer for layer in net.modules() if name in getattr(layer, "lora_A", {})]
    return found


def _set_alpha(layers: list[Any], name: str, adapter: Adapter) -> None:
    """Apply the catalog's alpha policy; `set_adapters` multiplies weight x alpha/rank from it."""
    if adapter.alpha == "file":
        return
    for layer in layers:
        rank = layer.r[name]
        layer.lora_alpha[name] = rank if adapter.alpha == "rank" else adapter.alpha


def _parts_with(pipeline: Any, names: list[str]) -> list[str]:
    parts = {part for name in names for part, found in _layers(pipeline, name).items() if found}
    return sorted(parts)
