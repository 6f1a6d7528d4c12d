"""Files of weights before anything reads them: safetensors that are whole, and no pickles."""

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from jobs.errors import BadConfiguration

#: Loading one of these may run whatever code its maker put into it.
PICKLED = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
#: How pickles begin, those that torch writes (zip archives) and gzipped ones too.
_MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x1f\x8b")
_PICKLE_REMEDY = "take the .safetensors of the same weights: pickles are never loaded"


def forbid_remote_code(*, hub_access: bool) -> None:
    """Set what diffusers and its kin read when they are imported; for a process of our own.

    No code that comes with weights is run, and without `hub_access` no hub is asked.
    """
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    if hub_access:
        # Our image sets it for all who say nothing.
        os.environ.pop("HF_HUB_OFFLINE", None)
    else:
        os.environ["HF_HUB_OFFLINE"] = "1"


def check_files(place: Path) -> None:
    """Raises BadConfiguration naming the file where a .safetensors at or below `place` is not one.

    Headers alone are read: sizes and offsets must add up, and the file must be whole.
    """
    for file in sorted(place.rglob("*.safetensors")) if place.is_dir() else [place]:
        _check(file)


def pickled_in(place: Path) -> str:
    """The name of a pickle that lies at `place`, a file or a folder; "" where there is none."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    return next((file.name for file in files if file.suffix.lower() in PICKLED), "")


def _check(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            if stream.read(8).startswith(_MAGIC):
                raise BadConfiguration(
                    "this is a pickle or an archive under another name",
                    where=str(file),
                    remedy=_PICKLE_REMEDY,
                )
        # numpy's name costs nothing here: no tensor is read.
        with safe_open(file, framework="numpy") as tensors:
            tensors.keys()
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise BadConfiguration(
            f"the file is damaged or no safetensors: {reason}"[:300],
            where=str(file),
            remedy="fetch it again, and compare its size with the original's",
        ) from error
    except OSError as error:
        raise BadConfiguration(
            f"the file cannot be read: {error.strerror or error}",
            where=str(file),
            remedy="let this user read it",
        ) from error
