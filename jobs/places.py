"""A place for files that last: a folder, or a prefix in S3-compatible storage, behind one face."""

import os
import uuid
from pathlib import Path
from typing import Protocol

from jobs.errors import BadConfiguration, InvalidInput, NotFound
from jobs.s3_client import BRIEF, s3_clients
from jobs.settings import Settings
from jobs.store import Store
from jobs.store_check import check_bucket

_PROBE = "_probe"


class Place(Protocol):
    """Files by relative name; each is written whole or not at all."""

    #: The place in words: a path, or `s3://bucket/prefix`.
    where: str

    def write(self, name: str, data: bytes | Path) -> None:
        """Write bytes, or a copy of a file, over what may be there."""

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where there is none."""

    def names(self) -> list[str]:
        """The names of all files, sorted."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""


class FolderPlace:
    """A folder on this machine, or on a disk that all machines see."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.where = str(folder)

    def write(self, name: str, data: bytes | Path) -> None:
        """Through a temporary name, so that no reader meets half a file."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            part.write_bytes(data.read_bytes() if isinstance(data, Path) else data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where there is none."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """The names of all files, sorted; not those that were being written at a death."""
        found = (one for one in self._folder.rglob("*") if one.is_file())
        names = (one.relative_to(self._folder).as_posix() for one in found)
        return sorted(name for name in names if not name.endswith(".part"))

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        (self._folder / name).unlink(missing_ok=True)


class StorePlace:
    """A prefix of a bucket."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, f"{prefix.strip('/')}/"
        self.where = f"s3://{store.bucket}/{prefix.strip('/')}"

    def write(self, name: str, data: bytes | Path) -> None:
        """Beyond 64 MiB in parts, still whole or not at all."""
        key = self._prefix + name
        if isinstance(data, Path):
            self._store.put_file(key, data)
        else:
            self._store.put(key, data)

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        try:
            return self._store.get(self._prefix + name)
        except NotFound:
            return None

    def names(self) -> list[str]:
        """The names of all objects under the prefix, sorted."""
        cut = len(self._prefix)
        return sorted(one.key[cut:] for one in self._store.list(self._prefix))

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        self._store.delete([self._prefix + name])


def store_of(place: str, settings: Settings) -> tuple[Store, str]:
    """The store and the prefix of `s3://bucket/prefix`; raises InvalidInput without a prefix."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if not bucket or not prefix.strip("/"):
        raise InvalidInput(
            "this is no place in a store", where=place, remedy="give s3://bucket/prefix"
        )
    address = settings.s3_endpoint or f"AWS S3 in {settings.s3_region}"
    quick, steady = s3_clients(settings)
    try:
        check_bucket(quick, bucket, address, create=False)
    finally:
        quick.close()
    return Store(steady, bucket, address, honours_absent=False), prefix


def place_of(out: str, settings: Settings) -> Place:
    """The place that `out` names; nothing is written. Raises InvalidInput, or as a store does."""
    if out.startswith("s3://"):
        return StorePlace(*store_of(out, settings))
    if out.startswith("~") or "://" in out:
        raise InvalidInput(
            "this is no folder", where=out, remedy="give a folder or s3://bucket/prefix"
        )
    return FolderPlace(Path(out).absolute())


def check_writable(out: str, settings: Settings) -> Place:
    """The place of `out` after a file was written to it and removed again.

    Raises InvalidInput for a folder, BadConfiguration or Unreachable for a store, within seconds.
    """
    if not out.startswith("s3://"):
        place = place_of(out, settings)
        try:
            place.write(_PROBE, b"")
            place.remove(_PROBE)
        except OSError as error:
            raise InvalidInput(
                f"the folder cannot be written: {error.strerror}",
                where=out,
                remedy="choose a folder that can",
            ) from error
        return place
    store, prefix = store_of(out, settings)
    probe = StorePlace(
        Store(
            s3_clients(settings)[0],
            store.bucket,
            store.address,
            honours_absent=False,
            patience=BRIEF,
        ),
        prefix,
    )
    try:
        probe.write(_PROBE, b"")
        probe.remove(_PROBE)
    except NotFound as error:
        raise BadConfiguration("the store does not take it", where=out) from error
    return StorePlace(store, prefix)
