"""Copying a dataset through its links: what is there goes on, and every digest is compared."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from jobs.errors import FewstepError, InvalidInput

_CHUNK = 1 << 20
#: Tries at one file before it is given up.
TRIES = 3
#: Reading or connecting, in seconds; a whole file may take longer.
TIMEOUT_S = 60.0
#: Told of each file: bytes there, bytes in all.
Progress = Callable[[int, int], None]


def download_files(
    files: list[dict[str, Any]], out: Path, progress: Progress, trust_env: bool
) -> int:
    """Copy files of a dataset into a folder; how many were copied anew.

    A file that was cut goes on where it was; one that is there with its size and digest stays.
    Raises FewstepError where a file is not what the index says, InvalidInput for a name that
    would leave the folder.
    """
    total, there, copied = sum(file["bytes"] for file in files), 0, 0
    # What tells a reader that all is there comes last, here as in the store.
    ordered = sorted(files, key=lambda file: file["name"] == "_SUCCESS")
    # The links bear their own right to read: our key must not go to another server.
    with httpx.Client(timeout=TIMEOUT_S, trust_env=trust_env) as http:
        for file in ordered:
            path = _path(out, file["name"])
            if not _right(path, file):
                _copy(http, file, path)
                copied += 1
            there += file["bytes"]
            progress(there, total)
    return copied


def _path(out: Path, name: str) -> Path:
    path = (out / name).resolve()
    if not path.is_relative_to(out.resolve()):
        raise InvalidInput(f"the file {name[:80]!r} would lie outside the folder", where=str(out))
    return path


def _right(path: Path, file: dict[str, Any]) -> bool:
    """Whether the file is there as it should be."""
    if not path.is_file() or path.stat().st_size != file["bytes"]:
        return False
    return file["sha256"] in ("", _digest(path))


def _copy(http: httpx.Client, file: dict[str, Any], path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    trouble = "it was cut"
    for _ in range(TRIES):
        try:
            _fetch(http, file, part)
        except httpx.HTTPError as error:
            trouble = str(error) or type(error).__name__
            continue
        if _right(part, file):
            os.replace(part, path)
            return
        trouble = "its bytes are not those of the index"
        part.unlink()
    raise FewstepError(
        f"the file could not be copied: {trouble[:200]}",
        where=file["name"],
        remedy="call again: it goes on where it was cut",
    )


def _fetch(http: httpx.Client, file: dict[str, Any], part: Path) -> None:
    """Append what is missing of a file."""
    size = part.stat().st_size if part.exists() else 0
    if size >= file["bytes"]:
        # Whole, or of another version: begin again in that case.
        if _right(part, file):
            return
        size = 0
    headers = {"Range": f"bytes={size}-"} if size else {}
    with http.stream("GET", file["link"], headers=headers) as reply:
        reply.raise_for_status()
        # A server that knows no ranges sends it all.
        with part.open("ab" if reply.status_code == 206 else "wb") as target:
            for chunk in reply.iter_bytes(_CHUNK):
                target.write(chunk)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
