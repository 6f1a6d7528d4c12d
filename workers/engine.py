"""The engine: a recipe's weights, loaded, checked, fused, and ready on a device."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from jobs.errors import BadConfiguration, NoCapacity
from jobs.recipe import Adapter, Recipe, canonical
from workers.weights import verified

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Engine:
    """Fused nets on a device. Its methods take and give tensors; it knows no job, row or queue."""

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
    load_ms: float

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
    return torch.device("cpu")


def load_engine(recipe: Recipe, device: torch.device, *, hub_access: bool = False) -> Engine:
    """Load the base, fuse accelerator and styles in float32, cast once, move to `device`.

    Raises BadConfiguration where weights are missing, damaged or do not fit; NoCapacity where the
    device has no room. The adapters' wrappers are gone afterwards: they would slow every call.
    """
    started = time.perf_counter()
    folder, model_sha256 = verified(recipe.base, hub_access=hub_access)
    pipeline = _load_base(recipe.family, folder)
    adapters = [recipe.accelerator] if recipe.accelerator else []
    adapters += canonical(recipe.styles)
    digests = _fuse(pipeline, adapters, hub_access)
    dtype = _DTYPES[recipe.dtype]
    try:
        pipeline.to(device=device, dtype=dtype)
        if dtype == torch.float16 and pipeline.vae.config.force_upcast:
            # As diffusers does: this autoencoder overflows in half precision.
            pipeline.vae.to(torch.float32)
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    except torch.cuda.OutOfMemoryError as error:
        raise NoCapacity(
            f"the engine does not fit into {device}", where=recipe.model, remedy="use a larger GPU"
        ) from error
    for net in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        net.eval().requires_grad_(False)
    accelerator_sha256 = digests.pop(0) if recipe.accelerator else ""
    return Engine(
        engine_key=recipe.engine_key,
        family=recipe.family,
        pipeline=pipeline,
        device=device,
        dtype=dtype,
        model_sha256=model_sha256,
        accelerator_sha256=accelerator_sha256,
        styles=tuple(
            f"{style.name}={style.weight:g}@{found}"
            for style, found in zip(canonical(recipe.styles), digests, strict=True)
        ),
        load_ms=(time.perf_counter() - started) * 1e3,
    )


def _load_base(family: str, folder: Path) -> Any:
    import diffusers
    from transformers.utils import logging as transformers_logging

    # They warn of optional packages and of adapters without text parts on every load; what is
    # really wrong is raised, here or by the checks below.
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    kinds: dict[str, Any] = {
        "sd": diffusers.StableDiffusionPipeline,
        "sdxl": diffusers.StableDiffusionXLPipeline,
    }
    unused = {"safety_checker": None, "feature_extractor": None} if family == "sd" else {}
    try:
        # The dtype must be said: a folder in half precision otherwise loads in two dtypes.
        pipeline = kinds[family].from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, **unused
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadConfiguration(
            f"the weights do not load as a {family} pipeline: {error}"[:400], where=str(folder)
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _fuse(pipeline: Any, adapters: list[Adapter], hub_access: bool) -> list[str]:
    """Fuse `adapters` in their order and unload them; gives the digest of each.

    Weights go through `set_adapters` and the scale of `fuse_lora` stays 1: a scale given there
    applies to whatever is active, and persists.
    """
    digests = []
    for number, adapter in enumerate(adapters):
        folder, found = verified(adapter.weights, hub_access=hub_access)
        _load_adapter(pipeline, folder, f"adapter{number}", adapter.name)
        digests.append(found)
    if adapters:
        names = [f"adapter{number}" for number in range(len(adapters))]
        pipeline.set_adapters(names, [adapter.weight for adapter in adapters])
        try:
            pipeline.fuse_lora(adapter_names=names, lora_scale=1.0, safe_fusing=True)
        except ValueError as error:
            raise BadConfiguration(
                f"the adapters cannot be fused: {error}"[:300],
                where=", ".join(adapter.name for adapter in adapters),
                remedy="one of them holds values that are not numbers",
            ) from error
        pipeline.unload_lora_weights()
    return digests


def _load_adapter(pipeline: Any, folder: Path, name: str, shown: str) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise BadConfiguration(
            f"{len(files)} .safetensors files where one is expected", where=f"{shown} ({folder})"
        )
    try:
        pipeline.load_lora_weights(folder, weight_name=files[0].name, adapter_name=name)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BadConfiguration(
            f"the adapter does not fit this base: {error}"[:400], where=f"{shown} ({files[0]})"
        ) from error
    wanted, injected = _modules_in(files[0]), _modules_injected(pipeline, name)
    if wanted != injected:
        # diffusers only warns when half of an adapter finds no place.
        raise BadConfiguration(
            f"{injected} of the adapter's {wanted} modules found their place in the base",
            where=f"{shown} ({files[0]})",
            remedy="it was made for another architecture",
        )


def _modules_in(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        keys = list(tensors.keys())
    ends = (".lora_A.weight", ".lora_down.weight", ".lora.down.weight")
    return sum(key.endswith(ends) for key in keys)


def _modules_injected(pipeline: Any, name: str) -> int:
    nets = [getattr(pipeline, part, None) for part in ("unet", "text_encoder", "text_encoder_2")]
    return sum(
        name in getattr(module, "lora_A", {})
        for net in nets
        if net is not None
        for module in net.modules()
    )
