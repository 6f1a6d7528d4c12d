"""Fused engines on this node's disk: written once, found by content, loaded to a device."""

import hashlib
import json
import logging
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from jobs.recipe import Adapter, Recipe
from workers.base_model import BaseFiles, load_base
from workers.depot import Depot, temporary

log = logging.getLogger(__name__)

#: Raised when entries of an earlier release must not be read any more.
FORMAT = 2
_ABOUT = "about.json"
_VERSIONS = ("torch", "diffusers", "transformers", "peft")
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
#: What reading an entry raises that is not what was written.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    RuntimeError,
    SafetensorError,
)


def fused_key(
    recipe: Recipe, files: BaseFiles, adapters: list[Adapter], digests: list[str], depot: Depot
) -> str:
    """Identity of a fused engine by what was really found: unpinned weights have none before."""
    # The nets of a base in one file are built from a folder that its digest does not cover.
    configs = sorted(file for file in files.config.rglob("*.json") if file.is_file())
    names = [file.relative_to(files.config).as_posix() for file in configs]
    content = {
        "format": FORMAT,
        "family": recipe.family,
        "base": files.sha256,
        "config": list(zip(names, depot.digests(configs), strict=True)),
        "vae": [files.vae_sha256, recipe.vae_float32],
        "dtype": recipe.dtype,
        "adapters": [
            [found, adapter.weight, adapter.alpha]
            for adapter, found in zip(adapters, digests, strict=True)
        ],
        "versions": [metadata.version(name) for name in _VERSIONS],
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def load_fused(
    recipe: Recipe, files: BaseFiles, key: str, depot: Depot, device: torch.device
) -> Any | None:
    """The pipeline with the fused nets on `device`; None where no good entry is there.

    An entry that is not what its note says is removed, and made again by whoever asked.
    """
    entry = depot.entry("engines", key)
    if entry is None or not (entry / _ABOUT).is_file():
        return None
    # Before as well as after: reading takes long, and who makes room meanwhile looks at the mark.
    depot.reuse(entry)
    try:
        about = json.loads((entry / _ABOUT).read_text("utf-8"))
        _check(entry, about, recipe.family)
        nets = {
            part: _read(entry / part, facts["class"], device)
            for part, facts in about["parts"].items()
        }
    except torch.OutOfMemoryError:
        # A RuntimeError that says nothing of the entry.
        raise
    except _DAMAGE as error:
        log.warning("cache_damaged entry=%s error=%s", entry, error)
        shutil.rmtree(entry, ignore_errors=True)
        return None
    depot.reuse(entry)
    return load_base(recipe, files, **nets)


def save_fused(pipeline: Any, key: str, depot: Depot) -> None:
    """Keep the nets of a pipeline whose adapters are fused and whose dtype is final.

    A disk that is full costs the next renderer its time, not this one its work.
    """
    entry = depot.entry("engines", key)
    nets = {part: net for part in _PARTS if (net := getattr(pipeline, part, None)) is not None}
    if entry is None or any(type(net).__name__ not in _classes() for net in nets.values()):
        return
    made = None
    try:
        made = temporary(entry)
        about = {"format": FORMAT, "parts": {p: _write(made / p, n) for p, n in nets.items()}}
        (made / _ABOUT).write_text(json.dumps(about, indent=1), "utf-8")
        depot.keep(made, entry)
    except (OSError, SafetensorError) as error:
        log.warning("cache_not_written entry=%s error=%s", entry, error)
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _check(entry: Path, about: dict[str, Any], family: str) -> None:
    """Raise ValueError where a file's content is not what was written."""
    needed = set(_PARTS[:3] if family == "sd" else _PARTS)
    if absent := sorted(needed - about["parts"].keys()):
        raise ValueError(f"its note does not name {', '.join(absent)}")
    files = [entry / part / "weights.safetensors" for part in about["parts"]]
    # Without the notes of digests: a bit that rotted leaves size and time as they were.
    found = Depot().digests(files)
    wanted = [facts["sha256"] for facts in about["parts"].values()]
    if found != wanted:
        raise ValueError("its digest is another than when it was written")


def _write(folder: Path, net: Any) -> dict[str, str]:
    folder.mkdir()
    net.config.save_pretrained(folder) if not hasattr(net, "save_config") else net.save_config(
        folder
    )
    file = folder / "weights.safetensors"
    save_file(_state(net), file)
    return {"class": type(net).__name__, "sha256": Depot().digests([file])[0]}


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, those included that a state dict leaves out."""
    named = [*net.named_parameters(), *net.named_buffers()]
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named}


def _read(folder: Path, name: str, device: torch.device) -> nn.Module:
    """A net whose tensors were never anywhere but in its file and on the device."""
    with torch.device("meta"):
        net: nn.Module = _classes()[name](folder)
    for path, tensor in load_file(folder / "weights.safetensors", device=str(device)).items():
        owner, _, leaf = path.rpartition(".")
        module = net.get_submodule(owner)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        else:
            module._buffers[leaf] = tensor
    left = [name for name, one in [*net.named_parameters(), *net.named_buffers()] if one.is_meta]
    if left:
        raise ValueError(f"it lacks {len(left)} tensors, e.g. {left[0]}")
    return net


def _classes() -> dict[str, Any]:
    """Class -> how to make an empty one from a folder with its configuration."""
    import diffusers
    import transformers

    def of_diffusers(kind: Any) -> Any:
        return lambda folder: kind.from_config(kind.load_config(folder))

    def of_transformers(kind: Any) -> Any:
        return lambda folder: kind(kind.config_class.from_pretrained(folder))

    return {
        "UNet2DConditionModel": of_diffusers(diffusers.UNet2DConditionModel),
        "AutoencoderKL": of_diffusers(diffusers.AutoencoderKL),
        "CLIPTextModel": of_transformers(transformers.CLIPTextModel),
        "CLIPTextModelWithProjection": of_transformers(transformers.CLIPTextModelWithProjection),
    }
