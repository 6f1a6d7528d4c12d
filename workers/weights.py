"""Weights on this node: where a catalog's source lies, and whether it is what it should be."""

import hashlib
import re
from pathlib import Path

from jobs.errors import BadConfiguration
from jobs.recipe import Weights
from workers import tiny
from workers.depot import Depot
from workers.weight_files import check_files, pickled_in

#: What is read of a folder: never pickles, never code.
PATTERNS = ("*.safetensors", "*.json", "*.txt")
#: Of a pipeline's folder: its own list of parts, and the parts' folders.
PIPELINE = ("model_index.json", *(f"*/{pattern}" for pattern in PATTERNS))
BUILTIN = {
    "model": tiny.MODEL_DIR,
    "lcm_lora": tiny.LCM_LORA_DIR,
    "outline_lora": tiny.OUTLINE_LORA_DIR,
}
_INDEX = "model_index.json"
_NOWHERE = Depot()


def locate(weights: Weights, depot: Depot = _NOWHERE, *, needs_weights: bool = True) -> Path:
    """The local folder of `weights`, or the file where they are one file.

    Raises BadConfiguration where it is missing, or holds no safetensors file (with
    `needs_weights`). A hub is asked only with the depot's `hub_access`; otherwise its local cache
    must have the revision.
    """
    kind, _, name = weights.source.partition(":")
    if kind == "hub":
        place = _from_hub(name, weights, depot.hub_access)
    elif kind == "s3":
        # Engines load where there is no S3 client too (benchmarks/gpu.py).
        from workers.s3_weights import from_s3

        place = from_s3(weights, depot)
    else:
        place = BUILTIN.get(name, Path(name)) if kind == "builtin" else Path(name)
    if weights.file and place.is_dir():
        place = place / weights.file
    if needs_weights and not _holds_weights(place):
        pickle = pickled_in(place)
        raise BadConfiguration(
            "there is no .safetensors file in it"
            + (f", and {pickle} is pickled: such weights are not loaded" if pickle else ""),
            where=f"{weights.source} ({place})",
            remedy="check source and file in the catalog",
        )
    if not place.exists():
        raise BadConfiguration("there is no such folder", where=f"{weights.source} ({place})")
    return place


def digest(place: Path, variant: str = "", depot: Depot = _NOWHERE) -> str:
    """SHA-256 over the sorted relative names and contents of everything loaded from `place`."""
    root = place if place.is_dir() else place.parent
    files = files_of(place, variant)
    total = hashlib.sha256()
    for file, found in zip(files, depot.digests(files), strict=True):
        total.update(f"{file.relative_to(root).as_posix()} {found}\n".encode())
    return total.hexdigest()


def files_of(place: Path, variant: str = "") -> list[Path]:
    """Every file that loading `place` reads, sorted.

    Of a single file: itself and the `config.json` beside it. Of a pipeline's folder: its parts,
    in the wanted variant alone, so that twins in another precision do not count.
    """
    if place.is_file():
        beside = place.with_name("config.json")
        return [place, beside] if beside.is_file() else [place]
    if not (place / _INDEX).is_file():
        return sorted({file for pattern in PATTERNS for file in place.rglob(pattern)})
    parts = {file for pattern in PATTERNS for file in place.glob(f"*/{pattern}")}
    files = {place / _INDEX, *(place.glob("*.json"))} | _of_variant(parts, variant)
    return sorted(file for file in files if not file.parent.name.startswith("."))


def verified(weights: Weights, depot: Depot = _NOWHERE) -> tuple[Path, str]:
    """The local place and its digest; raises BadConfiguration where the catalog says another."""
    place = locate(weights, depot)
    check_files(place)
    found = digest(place, weights.variant, depot)
    if weights.sha256 and weights.sha256 != found:
        raise BadConfiguration(
            f"the weights have digest {found[:12]}…, the catalog says {weights.sha256[:12]}…",
            where=f"{weights.source} ({place})",
            remedy="the files are damaged or were replaced: restore them, or correct the catalog",
        )
    return place, found


def _holds_weights(place: Path) -> bool:
    if place.is_dir():
        return any(place.rglob("*.safetensors"))
    return place.is_file() and place.suffix == ".safetensors"


def _of_variant(files: set[Path], variant: str) -> set[Path]:
    """Without the weights of other variants; a part that lacks the wanted one keeps its plain."""
    tensors = {file for file in files if file.suffix == ".safetensors"}
    plain = {file for file in tensors if "." not in file.name.removesuffix(".safetensors")}
    if not variant:
        return files - (tensors - plain)
    named = re.compile(rf"\.{re.escape(variant)}(-\d+-of-\d+)?\.safetensors$")
    wanted = {file for file in tensors if named.search(file.name)}
    have = {file.parent for file in wanted}
    return (files - tensors) | wanted | {file for file in plain if file.parent not in have}


def _from_hub(name: str, weights: Weights, hub_access: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [weights.file, f"{Path(weights.file).parent.as_posix()}/config.json", "config.json"]
    try:
        return Path(
            snapshot_download(
                name,
                revision=weights.revision or None,
                allow_patterns=wanted if weights.file else [*PIPELINE, *PATTERNS],
                ignore_patterns=None if weights.file else _unwanted(weights.variant),
                local_files_only=not hub_access,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise BadConfiguration(
            "the weights are not on this node"
            + ("" if hub_access else " and renderers may not ask a hub"),
            where=f"hub:{name}@{weights.revision or 'main'}",
            remedy="download them first, or set FEWSTEP_HUB_ACCESS=true",
        ) from error


def _unwanted(variant: str) -> list[str]:
    """Twins of a pipeline's weights that would be fetched in vain."""
    twins = ["fp16", "bf16", "non_ema", "ema_only"]
    return [f"*.{one}.safetensors" for one in twins if one != variant]
