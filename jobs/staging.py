"""What a claim writes before its tar is committed, and how a later claim finds it."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from jobs.errors import FewstepError, NotFound
from jobs.layout import JobLayout, Unit
from jobs.objects import ObjectInfo
from jobs.records import Picture
from jobs.shard_row import ShardRow
from jobs.shard_tar import CONTENT_TYPE, row_json, write_tar
from jobs.store import Store

FAILED = "failed.jsonl"
TAR = "tar"
UPLOAD = "upload.json"
REJECTED = "rejected.tar"
#: In the metadata of a tar that was copied: what staging it took, for every writer of the table,
#: also one that comes when nothing is staged any more.
UPLOAD_MS = "upload-ms"


@dataclass(frozen=True, slots=True)
class TarFile:
    """A tar on local disk, in a file without a name: it goes when its process goes."""

    file: IO[bytes]
    bytes: int
    sha256: str


@contextmanager
def tar_file(pictures: Sequence[Picture], rows: Sequence[ShardRow]) -> Iterator[TarFile]:
    """The unit's tar, written to the temporary folder (a shard may exceed the memory)."""
    with tempfile.TemporaryFile(prefix="fewstep-") as file:
        write_tar(file, pictures, rows)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield TarFile(file, file.seek(0, os.SEEK_END), digest)


@contextmanager
def downloaded(store: Store, found: ObjectInfo) -> Iterator[TarFile]:
    """A committed tar, copied to local disk and compared with the digest it was given."""
    with tempfile.TemporaryFile(prefix="fewstep-") as file:
        digest = store.read_into(found.key, file)
        if found.metadata.get("sha256", digest) != digest:
            raise FewstepError(
                "the tar is not what was written",
                where=found.key,
                remedy="delete it to have its images rendered again",
            )
        file.seek(0)
        yield TarFile(file, found.bytes, digest)


def put_failed(
    store: Store, layout: JobLayout, unit: Unit, token: str, rows: Sequence[ShardRow]
) -> None:
    """Write the rows of failed images, which no tar holds."""
    failed = [row for row in rows if row["status"] != "ok"]
    if failed:
        store.put(
            layout.staged(unit, token, FAILED),
            b"".join(row_json(row) + b"\n" for row in failed),
            content_type="application/jsonl",
        )


def failed_rows(
    store: Store, layout: JobLayout, unit: Unit, token: str, made: Sequence[ShardRow]
) -> list[ShardRow]:
    """The rows of the images that a tar lacks, as its claim left them.

    Where the store has forgotten whose tar it is, any claim's row of the same image will do.
    Raises FewstepError where an image is neither in the tar nor explained.
    """
    wanted = set(unit.indexes) - {row["image"] for row in made}
    if not wanted:
        return []
    found: dict[int, ShardRow] = {}
    for key in staged_of(store, layout, unit, token, FAILED):
        for line in store.get(key).splitlines():
            row: ShardRow = json.loads(line)
            found.setdefault(row["image"], row)
    if missing := wanted - found.keys():
        raise FewstepError(
            f"image {min(missing)} is neither in the tar nor among the failed",
            where=layout.tar(unit),
            remedy="delete the tar to have its images rendered again",
        )
    return [found[image] for image in sorted(wanted)]


def staged_of(store: Store, layout: JobLayout, unit: Unit, token: str, kind: str) -> list[str]:
    """What a claim staged of one kind, or, where that is not known, what any claim did."""
    own = layout.staged(unit, token, kind)
    if token and store.head(own) is not None:
        return [own]
    folder = layout.staged(unit, "", "").removesuffix(".")
    return [found.key for found in store.list(folder) if found.key.endswith(f".{kind}")]


def stage_tar(
    store: Store,
    layout: JobLayout,
    unit: Unit,
    token: str,
    tar: TarFile,
    metadata: dict[str, str],
) -> None:
    """Write the tar under its claim's token."""
    key = layout.staged(unit, token, TAR)
    store.put_file(key, tar.file, content_type=CONTENT_TYPE, metadata=metadata)


def copy_to_final(store: Store, layout: JobLayout, unit: Unit, token: str) -> ObjectInfo | None:
    """Copy the winner's staged tar to its final name; None where it is not staged any more."""
    upload_ms = read_upload_ms(store, layout, unit, token)
    staged = store.head(layout.staged(unit, token, TAR))
    # Who wins has written both, and they are removed together: half of it is all of it gone.
    if staged is None or upload_ms is None:
        return None
    # The token last: a store that forgot its metadata still learns whose tar this is.
    metadata = {**staged.metadata, UPLOAD_MS: repr(upload_ms), "token": token}
    try:
        store.copy(staged.key, layout.tar(unit), content_type=CONTENT_TYPE, metadata=metadata)
    except NotFound:
        return None
    return store.head(layout.tar(unit))


def put_upload_ms(
    store: Store, layout: JobLayout, unit: Unit, token: str, milliseconds: float
) -> None:
    """Write down how long staging the tar took, so that every writer of the table knows."""
    data = json.dumps({"upload_ms": milliseconds}).encode()
    key = layout.staged(unit, token, UPLOAD)
    store.put(key, data, content_type="application/json")


def read_upload_ms(store: Store, layout: JobLayout, unit: Unit, token: str) -> float | None:
    """How long staging the tar took; None where nobody wrote that down."""
    try:
        return float(json.loads(store.get(layout.staged(unit, token, UPLOAD)))["upload_ms"])
    except NotFound:
        return None


def known_upload_ms(
    store: Store, layout: JobLayout, unit: Unit, token: str, tar: ObjectInfo
) -> float | None:
    """The same, of a committed tar: it says so itself, or what is staged does."""
    noted = tar.metadata.get(UPLOAD_MS)
    return float(noted) if noted else read_upload_ms(store, layout, unit, token)


def remove_staged(store: Store, layout: JobLayout, unit: Unit, token: str) -> None:
    """Remove what a claim staged: its unit is complete, or it has lost."""
    store.delete([layout.staged(unit, token, kind) for kind in (FAILED, REJECTED, TAR, UPLOAD)])
