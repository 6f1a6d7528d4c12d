"""Copying a dataset through its links: what is there goes on, and every digest is compared."""

import filecmp
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx

from jobs.brought import Brought
from jobs.errors import FewstepError, InvalidInput

_CHUNK = 1 << 20
#: Files that are copied at a time.
READERS = 4
#: Times that links are asked for anew without one more file having come.
FRESH = 2
#: Tries at one file before it is given up.
TRIES = 3
#: Reading or connecting, in seconds; a whole file may take longer.
TIMEOUT_S = 60.0
#: Folders whose files keep their names only while they are the same; those without a digest are
#: known by their size there.
_LASTING = ("train/", "images/", "data/", "imagefolder/", "thumbnails/")
#: Whose dataset it is comes first, so that a copy that was cut is known for it; what tells a reader
#: that all is there comes last, here as in the store.
_PLACES = {"job.json": -1, "_SUCCESS": 1}
#: Told of each file: bytes there, bytes in all.
Progress = Callable[[int, int], None]


class _LinkExpired(Exception):
    """The store refuses a link."""


class Copying:
    """Copies the files of a dataset into a folder, four at a time; `copied`: how many anew.

    A file that was cut goes on where it was; one that is there with its size and digest stays. One
    without a digest that a later round may have written anew is copied, and counts if it differs.
    What an earlier copy brought and the dataset has no more is removed.
    """

    def __init__(self, out: Path, progress: Progress, *, trust_env: bool) -> None:
        self.copied = 0
        self._out, self._progress, self._trust_env = out, progress, trust_env
        self._idle = 0
        #: Names of files that are right: links run out sooner than a large dataset is read again.
        self._right = set[str]()

    def take(self, files: list[dict[str, Any]]) -> bool:
        """Copy what is missing; False: the links work no more, call again with fresh ones.

        Raises FewstepError where a file is not what the index says or no link works, InvalidInput
        for a name that would leave the folder.
        """
        before = self.copied
        try:
            self._copy_all(files)
        except _LinkExpired as error:
            self._idle = 0 if self.copied > before else self._idle + 1
            if self._idle >= FRESH:
                raise FewstepError(
                    "the store refuses the links", remedy="does its clock show the time?"
                ) from error
            return False
        return True

    def _copy_all(self, files: list[dict[str, Any]]) -> None:
        paths = {file["name"]: _path(self._out, file["name"]) for file in files}
        total, there = sum(file["bytes"] for file in files), 0
        # The links bear their own right to read: our key must not go to another server.
        with httpx.Client(timeout=TIMEOUT_S, trust_env=self._trust_env) as http:

            def copy(file: dict[str, Any]) -> tuple[int, bool]:
                path, anew = paths[file["name"]], False
                if file["name"] not in self._right:
                    anew = not (_lasts(file) and _right(path, file)) and _copy(http, file, path)
                    self._right.add(file["name"])
                return file["bytes"], anew

            def copy_all(place: int) -> None:
                nonlocal there
                some = [file for file in files if _PLACES.get(file["name"], 0) == place]
                for size, anew in _at_once(copy, some):
                    there, self.copied = there + size, self.copied + anew
                    self._progress(there, total)

            copy_all(-1)
            brought = Brought(self._out, paths)
            copy_all(0)
            brought.tidy()
            copy_all(1)


def _at_once(
    copy: Callable[[dict[str, Any]], tuple[int, bool]], files: list[dict[str, Any]]
) -> Iterator[tuple[int, bool]]:
    """What came of each file, as they are ready; the first fault ends those not begun."""
    with ThreadPoolExecutor(READERS) as readers:
        copies = [readers.submit(copy, file) for file in files]
        try:
            for one in as_completed(copies):
                yield one.result()
        except BaseException:
            readers.shutdown(wait=True, cancel_futures=True)
            raise


def _path(out: Path, name: str) -> Path:
    path = (out / name).resolve()
    if not path.is_relative_to(out.resolve()):
        raise InvalidInput(f"the file {name[:80]!r} would lie outside the folder", where=str(out))
    return path


def _lasts(file: dict[str, Any]) -> bool:
    """Whether a file of its size, or digest, is the file."""
    return bool(file["sha256"]) or file["name"].startswith(_LASTING)


def _right(path: Path, file: dict[str, Any]) -> bool:
    """Whether the file is there as it should be."""
    if not path.is_file() or path.stat().st_size != file["bytes"]:
        return False
    return file["sha256"] in ("", _digest(path))


def _copy(http: httpx.Client, file: dict[str, Any], path: Path) -> bool:
    """Copy a file; whether it is another than the one that was there."""
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _lasts(file):
        # What was cut may be the start of another version.
        part.unlink(missing_ok=True)
    trouble = "it was cut"
    for _ in range(TRIES):
        try:
            _fetch(http, file, part)
        except httpx.HTTPStatusError as error:
            # Links work for a while; a large dataset takes longer.
            if error.response.status_code in (401, 403):
                raise _LinkExpired from error
            # Its own words name the link, and a link is a secret.
            trouble = f"the store answered {error.response.status_code}"
            continue
        except httpx.HTTPError as error:
            trouble = str(error) or type(error).__name__
            continue
        if _right(part, file):
            same = path.is_file() and filecmp.cmp(part, path, shallow=False)
            os.replace(part, path)
            return not same
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
