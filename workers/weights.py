"""Weights on this node: where a catalog's source lies, and whether it is what it should be."""

import hashlib
from pathlib import Path

from jobs.errors import BadConfiguration
from jobs.recipe import Weights
from workers import tiny
from workers.weight_files import check_files, pickled_in

#: What is read of a folder: never pickles, never code.
PATTERNS = ("*.safetensors", "*.json", "*.txt")
BUILTIN = {
    "model": tiny.MODEL_DIR,
    "lcm_lora": tiny.LCM_LORA_DIR,
    "outline_lora": tiny.OUTLINE_LORA_DIR,
}


def locate(weights: Weights, *, hub_access: bool = False) -> Path:
    """The local folder of `weights`.

    Raises BadConfiguration where it is missing, or holds no safetensors file. A hub is asked only
    with `hub_access`; otherwise its local cache must have the revision.
    """
    kind, _, name = weights.source.partition(":")
    if kind == "hub":
        folder = _from_hub(name, weights.revision, hub_access)
    else:
        folder = BUILTIN.get(name, Path(name)) if kind == "builtin" else Path(name)
    if not folder.is_dir() or not any(folder.rglob("*.safetensors")):
        pickle = pickled_in(folder)
        raise BadConfiguration(
            "there is no .safetensors file in it"
            + (f", and {pickle} is pickled: such weights are not loaded" if pickle else ""),
            where=f"{weights.source} ({folder})",
            remedy="check the source in the catalog",
        )
    return folder


def digest(folder: Path) -> str:
    """SHA-256 over the sorted relative names and contents of everything loaded from `folder`."""
    total = hashlib.sha256()
    files = {file for pattern in PATTERNS for file in folder.rglob(pattern)}
    for file in sorted(files):
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()} {found}\n".encode())
    return total.hexdigest()


def verified(weights: Weights, *, hub_access: bool = False) -> tuple[Path, str]:
    """The local folder and its digest; raises BadConfiguration where the catalog says another."""
    folder = locate(weights, hub_access=hub_access)
    check_files(folder)
    found = digest(folder)
    if weights.sha256 and weights.sha256 != found:
        raise BadConfiguration(
            f"the weights have digest {found[:12]}…, the catalog says {weights.sha256[:12]}…",
            where=f"{weights.source} ({folder})",
            remedy="the files are damaged or were replaced: restore them, or correct the catalog",
        )
    return folder, found


def _from_hub(name: str, revision: str, hub_access: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(PATTERNS),
                local_files_only=not hub_access,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise BadConfiguration(
            "the weights are not on this node"
            + ("" if hub_access else " and renderers may not ask a hub"),
            where=f"hub:{name}@{revision or 'main'}",
            remedy="download them first, or set FEWSTEP_HUB_ACCESS=true",
        ) from error
