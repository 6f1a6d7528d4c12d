"""What the doctor looks at on this machine: Python, packages, devices, memory, disk."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from fewstep.devices import cores, free_memory, gpus
from fewstep.findings import Finding

#: Below the first a job of pictures soon stops, below the second at once.
LITTLE_DISK, NO_DISK = 5_000_000_000, 500_000_000
#: A local stack with one renderer takes about as much.
LITTLE_MEMORY = 2_000_000_000
_PACKAGES = ("ray", "torch", "diffusers", "peft", "redis", "boto3", "pyarrow", "pydantic")
_OLDEST_PYTHON = (3, 11)


def python_found() -> Iterator[Finding]:
    """The interpreter and the packages that everything stands on."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _OLDEST_PYTHON:
        yield Finding("python", "fail", version, "use Python 3.11 or newer")
    else:
        yield Finding("python", "ok", version)
    for name in _PACKAGES:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", "pip install 'fewstep[local]'")


def devices_found() -> Iterator[Finding]:
    """GPUs, cores and memory."""
    found = gpus()
    for gpu in found:
        yield Finding("gpu", "ok", f"{gpu.name}, {gpu.memory / 1e9:.0f} GB")
    if not found:
        remedy = "enough for the embedded model; for larger ones use a machine with a GPU"
        yield Finding("gpu", "warn", "none: renderers will use CPU cores", remedy)
    yield Finding("cores", "ok", str(cores()))
    free = free_memory()
    text = f"{free / 1e9:.1f} GB free"
    if free > LITTLE_MEMORY:
        yield Finding("memory", "ok", text)
    else:
        yield Finding("memory", "warn", text, "end other programs")


def disk_found(home: Path) -> Iterator[Finding]:
    """Room where the local stack keeps its state, and where shards are written before they go."""
    there = next(one for one in (home, *home.parents) if one.exists())
    yield _room("disk", there, "make room, or set FEWSTEP_HOME elsewhere")
    scratch = Path(tempfile.gettempdir())
    if scratch.stat().st_dev != there.stat().st_dev:
        yield _room("temporary files", scratch, "make room, or set TMPDIR elsewhere")


def _room(name: str, folder: Path, remedy: str) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free in {folder}"
    if free < NO_DISK:
        return Finding(name, "fail", f"nearly full: {text}", remedy)
    if free < LITTLE_DISK:
        return Finding(name, "warn", text, "make room before a large job")
    return Finding(name, "ok", text)
