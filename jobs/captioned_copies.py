"""Copies of tars that lie in a store, on this node's disk: bounded, and never taken from a run."""

import fcntl
import hashlib
import os
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.places import store_of
from jobs.settings import Settings


class Copies:
    """The folder of copies. As long as this lives, no process of the node removes any."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.cache / "captioned"
        self._used: set[Path] = set()
        #: A file that is locked as long as its process needs copies.
        self._held: Path | None = None

    def fetched(self, source: str) -> list[Path]:
        """Copies of the tars under a prefix; an object that changes is copied anew."""
        self._hold()
        store, prefix = store_of(source, self._settings)
        try:
            tars = [one for one in store.list(prefix) if one.key.endswith(".tar")]
            found = []
            for one in tars:
                facts = f"{store.address} {store.bucket} {one.key} {one.bytes} {one.etag}"
                path = self._folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.tar"
                self._used.add(path)
                if not path.exists():
                    self._make_room(one.bytes)
                    store.download(one.key, path)
                # Unused for longest goes first; the time of writing names what is noted of it.
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
                found.append(path)
            return found
        finally:
            store.close()

    def _hold(self) -> None:
        if self._held is not None:
            return
        path = self._folder / "held" / uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not while somebody sees who holds copies, and removes what nobody does.
        with _locked(self._folder / "lock"):
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(file, fcntl.LOCK_EX)
        self._held = path
        # When the last that uses the copies is gone, or its process ends.
        weakref.finalize(self, _let_go, path, file)

    def _make_room(self, wanted: int) -> None:
        """Remove copies, those unused for longest first, until `wanted` bytes more fit the limit.

        Nothing while another process needs copies: the next run does it.
        """
        with _locked(self._folder / "lock"):
            others = [one for one in (self._folder / "held").iterdir() if one != self._held]
            if any([_lives(one) for one in others]):
                return
            there = {path: path.stat() for path in self._folder.glob("*.tar")}
            total = wanted + sum(stat.st_size for stat in there.values())
            for path in sorted(there, key=lambda one: there[one].st_atime_ns):
                if total > self._settings.cache_bytes and path not in self._used:
                    path.unlink()
                    total -= there[path].st_size


def _let_go(path: Path, file: int) -> None:
    path.unlink(missing_ok=True)
    os.close(file)


def _lives(path: Path) -> bool:
    """Whether the process that made this file needs copies; what a dead one left is removed."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    path.unlink(missing_ok=True)
    return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
