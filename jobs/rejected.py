"""Pictures that filters turned away: a tar of them for each unit, in the quarantine.

Staged under the claim's token before the unit's own tar, and copied to its place once that is
committed: so it is of the same claim, and whoever adopts the tar can copy it too. What resembles
pictures of other shards joins them when its job is finished.
"""

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import IO

from jobs.layout import JobLayout, Unit
from jobs.manifest import FileFacts, Manifest
from jobs.objects import ObjectInfo
from jobs.records import Picture
from jobs.rewriting import rewound, unit_of
from jobs.shard_row import ShardRow, json_row_of
from jobs.shard_tar import CONTENT_TYPE, row_json
from jobs.staging import REJECTED, staged_of, tar_file
from jobs.store import Store


def stage_rejected(
    store: Store,
    layout: JobLayout,
    unit: Unit,
    token: str,
    pictures: Sequence[Picture],
    rows: Sequence[ShardRow],
) -> None:
    """Write the pictures that were turned away, if there are any, under the claim's token."""
    pairs = [
        (_as_made(picture), row)
        for picture, row in zip(pictures, rows, strict=True)
        if picture.record.rejected and picture.data
    ]
    if not pairs:
        return
    with tar_file([one for one, _ in pairs], [row for _, row in pairs]) as tar:
        store.put_file(
            layout.staged(unit, token, REJECTED),
            tar.file,
            content_type=CONTENT_TYPE,
            metadata={"sha256": tar.sha256},
        )


def keep_rejected(store: Store, layout: JobLayout, unit: Unit, token: str) -> FileFacts | None:
    """Copy what was staged to its place in the quarantine; None where nothing was. May be repeated.

    `token`: of the claim that made the unit's tar.
    """
    staged = next(iter(staged_of(store, layout, unit, token, REJECTED)), None)
    found = store.head(staged) if staged else None
    if staged is None or found is None:
        return None
    digest = _digest(store, found)
    target = layout.rejected_tar(unit)
    etag = store.copy(staged, target, content_type=CONTENT_TYPE, metadata={"sha256": digest})
    name = target.rpartition("/")[2]
    return FileFacts(name=name, bytes=found.bytes, sha256=digest, etag=etag)


def put_rejected_of(
    store: Store,
    layout: JobLayout,
    manifest: Manifest,
    tar: IO[bytes],
    rows: Sequence[ShardRow],
    gone: Set[str],
) -> FileFacts:
    """Write the tar of all of a unit's pictures that were turned away.

    `rows`: the unit's, as they read now. Those with the keys `gone` are in its own `tar`, others
    in what there is already, which this takes the place of. May be repeated: the same rows make
    the same bytes.
    """
    target = layout.rejected_tar(unit_of(manifest))
    with (
        tempfile.TemporaryFile(prefix="fewstep-") as out,
        _there(store, target) as others,
        tarfile.open(fileobj=rewound(tar), mode="r:") as own,
    ):
        known, new = _members(others), _members(own)
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
            for row in (one for one in rows if one["error_kind"] == "rejected"):
                if row["key"] in gone:
                    _copy(own, new[row["key"]], made, row_json(json_row_of(row)))
                else:
                    _copy(others, known.get(row["key"], ()), made)
        size = out.tell()
        out.seek(0)
        digest = hashlib.file_digest(out, "sha256").hexdigest()
        facts = {"sha256": digest}
        reply = store.put_file(target, rewound(out), content_type=CONTENT_TYPE, metadata=facts)
    name = target.rpartition("/")[2]
    return FileFacts(name=name, bytes=size, sha256=digest, etag=reply.etag)


@contextmanager
def _there(store: Store, key: str) -> Iterator[tarfile.TarFile]:
    """A tar of the quarantine; an empty one where there is none."""
    with tempfile.TemporaryFile(prefix="fewstep-") as file:
        if store.head(key) is None:
            tarfile.open(fileobj=file, mode="w").close()
        else:
            store.read_into(key, file)
        with tarfile.open(fileobj=rewound(file), mode="r:") as tar:
            yield tar


def _members(tar: tarfile.TarFile) -> dict[str, list[tarfile.TarInfo]]:
    """Key -> its members, in their order."""
    found: dict[str, list[tarfile.TarInfo]] = {}
    for member in tar:
        found.setdefault(member.name.partition(".")[0], []).append(member)
    return found


def _copy(
    source: tarfile.TarFile,
    members: Sequence[tarfile.TarInfo],
    target: tarfile.TarFile,
    row: bytes = b"",
) -> None:
    """The members as they are, but for the row, where it reads otherwise now."""
    for member in members:
        if row and member.name.endswith(".json"):
            anew = tarfile.TarInfo(member.name)
            anew.size = len(row)
            target.addfile(anew, io.BytesIO(row))
        else:
            target.addfile(member, source.extractfile(member))


def _digest(store: Store, found: ObjectInfo) -> str:
    """Of its bytes: as it says itself, or read where the store forgets what it is told."""
    known = found.metadata.get("sha256")
    return known or hashlib.sha256(store.get(found.key)).hexdigest()


def _as_made(picture: Picture) -> Picture:
    record = picture.record.model_copy(update={"status": "ok"})
    return picture.model_copy(update={"record": record})
