"""Pictures that filters turned away: a tar of them for each unit, in the quarantine.

Staged under the claim's token before the unit's own tar, and copied to its place once that is
committed: so it is of the same claim, and whoever adopts the tar can copy it too.
"""

import hashlib
from collections.abc import Sequence

from jobs.layout import JobLayout, Unit
from jobs.manifest import FileFacts
from jobs.objects import ObjectInfo
from jobs.records import Picture
from jobs.shard_row import ShardRow
from jobs.shard_tar import CONTENT_TYPE
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


def _digest(store: Store, found: ObjectInfo) -> str:
    """Of its bytes: as it says itself, or read where the store forgets what it is told."""
    known = found.metadata.get("sha256")
    return known or hashlib.sha256(store.get(found.key)).hexdigest()


def _as_made(picture: Picture) -> Picture:
    record = picture.record.model_copy(update={"status": "ok"})
    return picture.model_copy(update={"record": record})
