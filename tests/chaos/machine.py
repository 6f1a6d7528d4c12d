"""What only root may do to a machine: control groups, small file systems, packet filters."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MEMORY = Path("/sys/fs/cgroup/memory")


def root_missing() -> str:
    """Why mounts cannot be made."""
    return "" if os.geteuid() == 0 else "needs root"


def cgroups_missing() -> str:
    """Why a control group cannot be made."""
    if not os.access(_MEMORY / "cgroup.procs", os.W_OK):
        return "needs a writable memory control group (version 1)"
    return ""


def filter_missing() -> str:
    """Why packets cannot be dropped."""
    if reason := root_missing():
        return reason
    return "" if shutil.which("nft") else "needs nft (Debian: nftables)"


def _faketime() -> Path | None:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return found[0] if found else None


def clock_missing() -> str:
    """Why a server's clock cannot be turned."""
    return "" if _faketime() else "needs libfaketime (Debian: libfaketime)"


def turned_clock(file: Path) -> dict[str, str]:
    """The environment of a process whose clock is the machine's plus the seconds in `file`."""
    file.write_text("+0\n")
    return {
        **os.environ,
        "LD_PRELOAD": str(_faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@dataclass(frozen=True)
class Group:
    """A memory control group."""

    folder: Path

    def kills(self) -> int:
        """How often the kernel ended a process in it."""
        lines = (self.folder / "memory.oom_control").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def small_cgroup(pid: int, limit: int) -> Iterator[Group]:
    """Moves a process into a group that may have `limit` bytes more than it has now."""
    folder = _MEMORY / f"fewstep-chaos-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        (folder / "cgroup.procs").write_text(str(pid))
        yield Group(folder)
    finally:
        folder.rmdir()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size` at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "fewstep-chaos", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


@contextmanager
def lossy(ports: list[int], percent: int) -> Iterator[None]:
    """Of the packets to and from these loopback ports, that many in a hundred vanish."""
    table = f"fewstep_chaos_{uuid.uuid4().hex[:8]}"
    listed = ", ".join(str(port) for port in ports)
    drop = f"numgen random mod 100 < {percent} drop"
    rules = f"""table ip {table} {{
        chain out {{
            type filter hook output priority 0;
            tcp dport {{ {listed} }} {drop}
            tcp sport {{ {listed} }} {drop}
        }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)
