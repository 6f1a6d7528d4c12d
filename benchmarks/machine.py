"""The machine and the switches a run was made with: a figure without them says nothing."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy", "pillow", "boto3", "ray")
#: Variables that change how fast nets run.
SWITCHES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_CACHE_DIR", "FEWSTEP_COMPILE")


def bare() -> dict[str, object]:
    """The machine alone, for what loads no torch; the load is that of the moment."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "load": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def describe() -> dict[str, object]:
    """What stands over every table; loads are those of the moment."""
    import torch

    return {
        **bare(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch_threads": torch.get_num_threads(),
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }


def sentence(machine: dict[str, object]) -> str:
    """The machine in one line, for people."""
    packages = machine["packages"]
    assert isinstance(packages, dict)
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['device']}; Python {machine['python']}, torch {packages['torch']} with "
        f"{machine['torch_threads']} thread(s), diffusers {packages['diffusers']}; "
        f"commit {machine['commit']}, {machine['date']}"
    )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
