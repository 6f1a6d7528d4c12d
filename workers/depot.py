"""What this node keeps between renderers: digests, copies from a store, engines, compiled code."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.settings import Settings

log = logging.getLogger(__name__)

#: Entries are folders in these; whoever uses one touches its `USED` file.
SHELVES = ("engines", "sources", "compiled")
USED = ".used"
_HASHERS = 4


@dataclass(frozen=True)
class Depot:
    """Where weights come from on this node, and the folder that it may fill.

    Without a folder nothing is kept. Several processes may share one: entries appear by one
    rename, and are made under a lock.
    """

    cache: Path | None = None
    cache_bytes: int = 0
    hub_access: bool = False
    #: For sources on S3: the endpoint and the keys.
    settings: Settings | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Depot":
        """The depot that the operator's settings describe."""
        cache = settings.cache if settings.cache_bytes else None
        return cls(cache, settings.cache_bytes, settings.hub_access, settings)

    def entry(self, shelf: str, key: str) -> Path | None:
        """Where an entry lies or would lie; None without a folder."""
        return None if self.cache is None else self.cache / shelf / key

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a name against every process of this node; nothing without a folder."""
        if self.cache is None:
            yield
            return
        folder = self.cache / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def touch(self, entry: Path) -> None:
        """Note that an entry is in use: the one unused for longest goes first."""
        (entry / USED).touch()

    def reuse(self, entry: Path) -> bool:
        """Note that an entry is in use; False where it is gone, or going."""
        try:
            os.utime(entry / USED)
        except OSError:
            return False
        return True

    def keep(self, made: Path, entry: Path) -> None:
        """Put a folder that was made beside it in its place, and make room for it."""
        self.touch(made)
        if entry.exists():
            # Another process may be removing it too, to make room.
            shutil.rmtree(entry, ignore_errors=True)
        os.rename(made, entry)
        self.make_room(entry)

    def make_room(self, kept: Path) -> None:
        """Remove the entries unused for longest until the rest fits; never `kept`.

        No more than half of the disk's free room is taken, whatever the limit allows. Files that
        a process has open stay readable for it.
        """
        if self.cache is None:
            return
        entries = [one for shelf in SHELVES for one in (self.cache / shelf).glob("[!.]*")]
        sizes = {one: _bytes_in(one) for one in entries}
        free = shutil.disk_usage(self.cache).free
        limit = min(self.cache_bytes, sum(sizes.values()) + free // 2)
        for one in sorted(entries, key=_last_used):
            if sum(sizes.values()) <= limit:
                return
            if one != kept:
                log.info("cache_evicted entry=%s bytes=%s", one, sizes.pop(one))
                # First, so that nobody takes what is left of it for an entry.
                with suppress(OSError):
                    (one / USED).unlink()
                shutil.rmtree(one, ignore_errors=True)

    def digests(self, files: list[Path]) -> list[str]:
        """SHA-256 of each file; one that has not changed since it was last taken is not read."""
        with ThreadPoolExecutor(_HASHERS, "digest") as pool:
            return list(pool.map(self._digest, files))

    def _digest(self, file: Path) -> str:
        stat = file.stat()
        name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:32]
        note = None if self.cache is None else self.cache / "digests" / name
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        if note is not None and (known := _read_note(note)) and known["seen"] == seen:
            return str(known["sha256"])
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if note is not None:
            write_whole(note, json.dumps({"seen": seen, "sha256": found}))
        return found


def temporary(entry: Path) -> Path:
    """A fresh folder beside an entry, of a name that no entry has.

    Whoever asks holds the lock of the entry's key: what others left of it is of the dead, and goes.
    """
    for left in entry.parent.glob(f".{entry.name}.*"):
        log.info("cache_leftover_removed folder=%s", left)
        shutil.rmtree(left, ignore_errors=True)
    made = entry.with_name(f".{entry.name}.{uuid.uuid4().hex[:8]}")
    made.mkdir(parents=True)
    return made


def write_whole(file: Path, text: str) -> None:
    """Write a small file so that a reader finds all of it or what was there before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    part.write_text(text, "utf-8")
    os.replace(part, file)


def _read_note(note: Path) -> dict[str, object] | None:
    try:
        known = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        # Not there yet, or not ours: the file is read, and a note written.
        return None
    return known if isinstance(known, dict) and {"seen", "sha256"} <= known.keys() else None


def _bytes_in(folder: Path) -> int:
    return sum(
        _size(os.path.join(place, name)) for place, _, names in os.walk(folder) for name in names
    )


def _size(file: str) -> int:
    try:
        return os.stat(file, follow_symlinks=False).st_size
    except FileNotFoundError:
        # A compiler at work renames its files meanwhile.
        return 0


def _last_used(entry: Path) -> float:
    mark = entry / USED
    try:
        return mark.stat().st_mtime
    except OSError:
        # Never marked, or another process is removing it.
        return 0.0
