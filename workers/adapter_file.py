"""An adapter's file before it is loaded: is it a plain LoRA, whole, and what it is said to be?"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from jobs.errors import BadConfiguration
from jobs.recipe import Adapter

_DOWN = re.compile(r"[._](lora_A|lora_down|lora\.down)(\.default)?\.weight$")
_UP = re.compile(r"[._](lora_B|lora_up|lora\.up)(\.default)?\.weight$")
_ALPHA = re.compile(r"\.alpha$")
_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class AdapterFile:
    """A LoRA file that was looked through: modules it changes, and the alphas it names."""

    path: Path
    modules: int
    alphas: frozenset[float]


def read_adapter(place: Path, adapter: Adapter) -> AdapterFile:
    """Look through an adapter's file; `place` is it, or a folder that holds no other.

    Raises BadConfiguration where it is no safetensors file, no plain LoRA, half of a pair is
    missing, a value is not a number, or layout or alpha are not what the catalog says.
    """
    path = _only_file(place, adapter.name)
    where = f"{adapter.name} ({path})"
    try:
        with safe_open(path, framework="pt") as tensors:
            keys = list(tensors.keys())
            _check_keys(keys, where)
            alphas = {float(tensors.get_tensor(key)) for key in keys if _ALPHA.search(key)}
            alphas |= _alphas_told(tensors.metadata() or {})
            _check_numbers(tensors, keys, where)
    except (SafetensorError, OSError) as error:
        raise BadConfiguration(
            f"it is no safetensors file: {error}"[:300],
            where=where,
            remedy="a pickled file must be converted by whoever made it; it is not opened here",
        ) from error
    _check_layout(keys, adapter, where)
    _check_alpha(alphas, adapter, where)
    return AdapterFile(path, sum(bool(_DOWN.search(key)) for key in keys), frozenset(alphas))


def _only_file(place: Path, shown: str) -> Path:
    if place.is_file():
        return place
    files = sorted(place.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    raise BadConfiguration(
        f"{len(files)} .safetensors files where one is expected",
        where=f"{shown} ({place})",
        remedy="name one of them as `file` in the catalog",
    )


def _check_keys(keys: list[str], where: str) -> None:
    kinds = (_DOWN, _UP, _ALPHA)
    strange = [key for key in keys if not any(kind.search(key) for kind in kinds)]
    if strange:
        raise BadConfiguration(
            f"it is no plain LoRA: {strange[0]!r} is neither of its two matrices nor an alpha",
            where=where,
            remedy="DoRA, LoHa, LoKr and whole models cannot be fused as a LoRA",
        )
    down, up = ({kind.sub("", key) for key in keys if kind.search(key)} for kind in (_DOWN, _UP))
    if down != up or not down:
        lonely = sorted(down ^ up)
        raise BadConfiguration(
            f"{len(lonely)} of its modules have one matrix of two, e.g. {lonely[0]!r}"
            if lonely
            else "it holds no LoRA",
            where=where,
            remedy="the file is damaged or was cut: fetch it again",
        )


def _check_numbers(tensors: Any, keys: list[str], where: str) -> None:
    for key in keys:
        if not bool(torch.isfinite(tensors.get_tensor(key)).all()):
            raise BadConfiguration(
                f"{key!r} holds values that are not numbers (NaN or infinite)",
                where=where,
                remedy="its training diverged, or the file is damaged: pictures would be black",
            )


def _check_layout(keys: list[str], adapter: Adapter, where: str) -> None:
    kohya = sum(key.startswith("lora_") for key in keys)
    found = "kohya" if kohya == len(keys) else "peft"
    if adapter.layout not in ("any", found):
        raise BadConfiguration(
            f"its keys are in the layout {found!r}, the catalog says {adapter.layout!r}",
            where=where,
            remedy="correct the catalog, or use the file that it means",
        )


def _check_alpha(alphas: set[float], adapter: Adapter, where: str) -> None:
    """A number in the catalog is for files that name no alpha; they must not disagree."""
    given = adapter.alpha
    if isinstance(given, float | int) and alphas and alphas != {float(given)}:
        raise BadConfiguration(
            f"it says alpha {', '.join(f'{one:g}' for one in sorted(alphas))}, "
            f"the catalog says {given:g}",
            where=where,
            remedy="set alpha = 'file' in the catalog to believe the file",
        )


def _alphas_told(metadata: dict[str, str]) -> set[float]:
    """The alphas in the configuration that diffusers writes beside a LoRA."""
    try:
        told = json.loads(metadata.get(_METADATA, "{}"))
    except ValueError:
        # Another program's note of the same name: it says nothing about alpha.
        return set()
    found: set[float] = set()
    for name, value in told.items():
        if name.endswith("lora_alpha") and isinstance(value, int | float):
            found.add(float(value))
        elif name.endswith("alpha_pattern") and isinstance(value, dict):
            found |= {float(one) for one in value.values()}
    return found
