"""The engine: a recipe's weights, loaded, checked, fused, and ready on a device."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.errors import NoCapacity
from jobs.recipe import Adapter, Recipe, canonical
from jobs.records import LoadTimes
from workers.base_model import BaseFiles, find_base, load_base
from workers.depot import Depot
from workers.fused_cache import fused_key, load_fused, save_fused
from workers.fusing import adapters_of, fuse
from workers.heap import keep_freed_memory
from workers.linear import use_onednn
from workers.weights import verified

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_NOWHERE = Depot()


@dataclass(frozen=True)
class Engine:
    """Fused nets on a device; it knows no job, row or queue.

    For one thread at a time: tokenizers keep the padding of the call that they are in.
    """

    engine_key: str
    family: str
    #: The diffusers pipeline that holds the nets: it tokenizes and encodes text.
    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    model_sha256: str
    accelerator_sha256: str
    #: "NAME=WEIGHT@SHA256" in the order of fusing.
    styles: tuple[str, ...]
    load_times: LoadTimes

    @property
    def load_ms(self) -> float:
        """From nothing to ready, in milliseconds."""
        return self.load_times.total_ms

    @property
    def unet(self) -> Any:
        """The denoising net."""
        return self.pipeline.unet

    @property
    def vae(self) -> Any:
        """The autoencoder; only its decoder is used."""
        return self.pipeline.vae

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """Noise schedule and prediction type the base was trained with."""
        return dict(self.pipeline.scheduler.config)

    @property
    def latent_factor(self) -> int:
        """Pixels per latent, each way."""
        return int(self.pipeline.vae_scale_factor)


def pick_device(threads: int = 1) -> torch.device:
    """The GPU this process was given, or the CPU with that many threads."""
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        # An autotuner may pick another kernel another day, and with it other last bits.
        torch.backends.cudnn.benchmark = False
        return torch.device("cuda")
    torch.set_num_threads(threads)
    keep_freed_memory()
    return torch.device("cpu")


def load_engine(recipe: Recipe, device: torch.device, depot: Depot = _NOWHERE) -> Engine:
    """Load the base, fuse accelerator and styles in float32, cast once, move to `device`.

    A fused engine that this node's depot keeps is read instead, straight to the device; one that
    is not there is made once, whoever else asks for it meanwhile, and kept. Raises
    BadConfiguration where weights are missing, damaged or do not fit; NoCapacity where the device
    has no room. The adapters' wrappers are gone afterwards: they would slow every call.
    """
    clock = _Stages()
    files = find_base(recipe, depot)
    adapters = adapters_of(recipe)
    found = [verified(adapter.weights, depot) for adapter in adapters]
    digests = [sha256 for _, sha256 in found]
    key = fused_key(recipe, files, adapters, digests, depot)
    clock.lap("find_ms")
    try:
        with depot.locked(f"engine-{key}"):
            pipeline = load_fused(recipe, files, key, depot, device)
            clock.lap("cache_ms")
            if pipeline is None:
                pipeline = _make(recipe, files, adapters, [place for place, _ in found], clock)
                save_fused(pipeline, key, depot)
                clock.lap("cache_ms")
        _move(pipeline, device)
    except torch.cuda.OutOfMemoryError as error:
        raise NoCapacity(
            f"the engine does not fit into {device}", where=recipe.model, remedy="use a larger GPU"
        ) from error
    clock.lap("device_ms")
    accelerator_sha256 = digests.pop(0) if recipe.accelerator else ""
    return Engine(
        engine_key=recipe.engine_key,
        family=recipe.family,
        pipeline=pipeline,
        device=device,
        dtype=_DTYPES[recipe.dtype],
        model_sha256=files.sha256,
        accelerator_sha256=accelerator_sha256,
        styles=tuple(
            f"{style.name}={style.weight:g}@{sha256}"
            for style, sha256 in zip(canonical(recipe.styles), digests, strict=True)
        ),
        load_times=LoadTimes(**clock.spent),
    )


def _make(
    recipe: Recipe, files: BaseFiles, adapters: list[Adapter], places: list[Path], clock: "_Stages"
) -> Any:
    """The fused pipeline in its final precision, on the CPU: its content knows no device."""
    pipeline = load_base(recipe, files)
    clock.lap("base_ms")
    fuse(pipeline, adapters, places)
    pipeline.to(dtype=_DTYPES[recipe.dtype])
    if recipe.vae_float32 and pipeline.vae.config.force_upcast:
        # As diffusers does: this autoencoder overflows in half precision.
        pipeline.vae.to(torch.float32)
    clock.lap("fuse_ms")
    return pipeline


def _move(pipeline: Any, device: torch.device) -> None:
    pipeline.to(device=device)
    for part in ("unet", "vae"):
        getattr(pipeline, part).to(memory_format=torch.channels_last)
        if device.type == "cpu":
            use_onednn(getattr(pipeline, part))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        net = getattr(pipeline, part, None)
        if net is not None:
            net.eval().requires_grad_(False)


class _Stages:
    """Milliseconds by stage; a stage that comes twice adds up."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.spent[stage] = self.spent.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
