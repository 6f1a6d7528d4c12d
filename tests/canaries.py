"""Looks for secrets where none may be: in files, in texts, on command lines."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil


def files_with(secrets: Mapping[str, str], folder: Path, spared: Iterable[Path] = ()) -> list[str]:
    """`what in which file` for every secret that a file below `folder` holds."""
    known = {path.resolve() for path in spared}
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink() or path.resolve() in known:
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            # Logs are turned over, and parts of uploads go, while we look.
            continue
        found += [
            f"{name} in {path}" for name, secret in secrets.items() if secret.encode() in data
        ]
    return found


def texts_with(secrets: Mapping[str, str], texts: Mapping[str, str]) -> list[str]:
    """`what in which text` for every secret that one of the texts holds."""
    return [
        f"{name} in {title}"
        for title, text in texts.items()
        for name, secret in secrets.items()
        if secret in text
    ]


def command_lines_with(secrets: Mapping[str, str]) -> list[str]:
    """`what in which process` for every secret on a command line, which anybody may read."""
    lines = {}
    for process in psutil.process_iter():
        try:
            lines[f"process {process.pid}"] = " ".join(process.cmdline())
        except psutil.Error:
            # It ended while we looked, or is somebody else's.
            continue
    return texts_with(secrets, lines)
