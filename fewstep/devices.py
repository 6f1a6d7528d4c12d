"""What this machine can render on: GPUs, CPU cores, memory."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.errors import NoCapacity

#: Resident bytes of a CPU renderer with the embedded model, and of the servers together.
RENDERER_BYTES = 700_000_000
SERVERS_BYTES = 700_000_000
#: Without GPUs no more renderers are started than this, unless they are asked for.
CPU_RENDERERS = 4


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its driver names it; memory in bytes."""

    name: str
    memory: int


def gpus() -> list[Gpu]:
    """GPUs that the driver shows and `CUDA_VISIBLE_DEVICES` does not hide."""
    found = _driver_gpus() if shutil.which("nvidia-smi") else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    return found[: len([part for part in visible.split(",") if part.strip() not in ("", "-1")])]


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Bytes that can be had without swapping, within the limit of this container."""
    free = psutil.virtual_memory().available
    limit = _number(Path("/sys/fs/cgroup/memory.max"))
    used = _number(Path("/sys/fs/cgroup/memory.current"))
    return free if limit is None or used is None else min(free, limit - used)


def default_renderers() -> int:
    """How many renderers suit this machine: one per GPU, else one per core up to four."""
    return len(gpus()) or min(cores(), CPU_RENDERERS)


def check_memory(renderers: int) -> None:
    """Raise NoCapacity where memory does not suffice for a stack with that many renderers."""
    free = free_memory()
    needed = SERVERS_BYTES + renderers * RENDERER_BYTES
    if free >= needed:
        return
    fitting = max((free - SERVERS_BYTES) // RENDERER_BYTES, 0)
    raise NoCapacity(
        f"{renderers} renderers need {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free",
        where="--renderers",
        remedy=f"use --renderers {fitting}" if fitting else "end other programs",
    )


def _driver_gpus() -> list[Gpu]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        reply = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        # The tool is there and its driver is not, as in many images without a GPU.
        return []
    lines = [line.rpartition(",") for line in reply.stdout.splitlines() if "," in line]
    return [Gpu(name.strip(), int(float(size)) << 20) for name, _, size in lines]


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("utf-8"))
    except (OSError, ValueError):
        # No such limit here: the file is missing, or says "max".
        return None
