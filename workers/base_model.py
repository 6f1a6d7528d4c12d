"""The base model: found, told apart by its configuration, and loaded in float32."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from jobs.architectures import fingerprint, name_of
from jobs.catalog import load_catalog
from jobs.errors import BadConfiguration
from jobs.recipe import Recipe
from workers.depot import Depot
from workers.weights import locate, verified


@dataclass(frozen=True)
class BaseFiles:
    """A base on this node: its weights, the folder of its configuration, its autoencoder."""

    place: Path
    sha256: str
    #: The folder with model_index.json, tokenizers and configurations.
    config: Path
    #: The folder of another autoencoder, and its digest.
    vae: Path | None = None
    vae_sha256: str = ""
    variant: str = ""


def find_base(recipe: Recipe, depot: Depot) -> BaseFiles:
    """Everything of a recipe's base, checked before any weight is read into memory.

    Raises BadConfiguration where something is missing, damaged, or of another architecture.
    """
    place, sha256 = verified(recipe.base, depot)
    config = place
    if recipe.config is not None:
        config = locate(recipe.config, depot, needs_weights=False)
    elif place.is_file():
        raise BadConfiguration(
            "a model in one file brings no configuration and no tokenizer",
            where=f"{recipe.model} ({place})",
            remedy="set config in the catalog to a diffusers folder of its architecture",
        )
    check_architecture(recipe, config)
    if recipe.vae is None:
        return BaseFiles(place, sha256, config, variant=recipe.base.variant)
    vae, vae_sha256 = verified(recipe.vae, depot)
    folder = vae.parent if vae.is_file() else vae
    return BaseFiles(place, sha256, config, folder, vae_sha256, recipe.base.variant)


def check_architecture(recipe: Recipe, config: Path) -> None:
    """Raise BadConfiguration where the UNet's configuration is not that of the recipe's."""
    file = config / "unet" / "config.json"
    try:
        unet = json.loads(file.read_text("utf-8"))
        found = fingerprint(unet)
    except (OSError, ValueError, TypeError) as error:
        raise BadConfiguration(
            f"the UNet's configuration cannot be read: {error}"[:300], where=str(file)
        ) from error
    if recipe.fingerprint and found != recipe.fingerprint:
        known = name_of(found, load_catalog().architectures) or "unknown"
        raise BadConfiguration(
            f"the architecture of its UNet is {known!r}, the catalog says {recipe.architecture!r}",
            where=f"{recipe.model} ({file})",
            remedy="correct the model's architecture in the catalog, or add a table for it",
        )


def load_base(recipe: Recipe, files: BaseFiles, **parts: Any) -> Any:
    """The diffusers pipeline in float32 on the CPU; `parts` are nets that are there already.

    Raises BadConfiguration where the weights do not load.
    """
    quiet()
    kind = pipeline_class(recipe.family)
    # The dtype must be said: a folder in half precision otherwise loads in two dtypes.
    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, **parts}
    if recipe.family == "sd":
        options |= {"safety_checker": None, "feature_extractor": None}
    try:
        if files.vae is not None and "vae" not in parts:
            options["vae"] = _load_vae(files.vae)
        if files.place.is_file() and "unet" not in parts:
            pipeline = kind.from_single_file(
                files.place, config=str(files.config), dtype=torch.float32, **_single(options)
            )
        else:
            folder = files.config if parts else files.place
            pipeline = kind.from_pretrained(
                folder, use_safetensors=True, variant=files.variant or None, **options
            )
    except _load_errors() as error:
        raise BadConfiguration(
            f"the weights do not load as a {recipe.family} pipeline: {error}"[:400],
            where=str(files.place),
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    _check_latents(pipeline, files)
    return pipeline


def pipeline_class(family: str) -> Any:
    """The diffusers pipeline of a family."""
    import diffusers

    kinds: dict[str, Any] = {
        "sd": diffusers.StableDiffusionPipeline,
        "sdxl": diffusers.StableDiffusionXLPipeline,
    }
    return kinds[family]


def quiet() -> None:
    """Stop diffusers and transformers from talking while they load.

    They warn of optional packages and of adapters without text parts on every load; what is
    really wrong is raised.
    """
    import diffusers
    from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _load_errors() -> tuple[type[Exception], ...]:
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    return OSError, ValueError, RuntimeError, KeyError, SafetensorError, SingleFileComponentError


def _load_vae(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )


def _single(options: dict[str, Any]) -> dict[str, Any]:
    """The options as `from_single_file` takes them."""
    return {name: value for name, value in options.items() if name != "dtype"}


def _check_latents(pipeline: Any, files: BaseFiles) -> None:
    wanted, given = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if wanted != given:
        raise BadConfiguration(
            f"the UNet has latents of {wanted} channels, the autoencoder {given}",
            where=str(files.vae or files.place),
            remedy="choose an autoencoder of the same family",
        )
