"""What follows from a committed tar: the unit's parquet file, then its manifest."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.errors import FewstepError, NotFound
from jobs.filter_columns import FILTER_MS, marks_of, rejects_of
from jobs.job import Job
from jobs.layout import JobLayout, Unit
from jobs.manifest import CONTENT_TYPE as JSON
from jobs.manifest import FileFacts, Manifest, stage_tallies, status_dict, value_counts
from jobs.records import ShardTimes
from jobs.setting_tallies import setting_tallies
from jobs.shard_row import ShardRow
from jobs.shard_table import CONTENT_TYPE as PARQUET
from jobs.shard_table import build_table
from jobs.store import Store


@dataclass(frozen=True, slots=True)
class CommittedTar:
    """A tar under its final name, and the rows of all the unit's images, failed ones too."""

    unit: Unit
    facts: FileFacts
    rows: Sequence[ShardRow]
    #: The claim that made the tar, and the one that is writing now: another one if adopted.
    token: str
    writer: str
    attempt: int
    times: ShardTimes
    #: Writing the staged or final tar; None where nobody wrote that down.
    upload_ms: float | None
    #: The pictures that filters turned away.
    rejected: FileFacts | None = None

    @property
    def upload_share_ms(self) -> float | None:
        """One image's share of writing the tar."""
        made = sum(row["status"] == "ok" for row in self.rows)
        return self.upload_ms / made if made and self.upload_ms is not None else None


def write_table(store: Store, layout: JobLayout, job: Job, tar: CommittedTar) -> FileFacts:
    """Write the parquet file, or find the one that an earlier claim wrote."""
    key = layout.table(tar.unit)
    data = build_table(tar.rows, job.columns, tar.upload_share_ms)
    digest = hashlib.sha256(data).hexdigest()
    facts = {"token": tar.writer, "sha256": digest}
    # A store that ignores the condition gets the same bytes from whoever writes, see commit.py.
    reply = store.put(
        key,
        data,
        content_type=PARQUET,
        metadata=facts,
        if_absent=store.honours_absent,
    )
    if not reply.fresh:
        data = store.get(key)
        digest = hashlib.sha256(data).hexdigest()
    return FileFacts(name=_name(key), bytes=len(data), sha256=digest, etag=reply.etag)


def write_manifest(
    store: Store, layout: JobLayout, job: Job, tar: CommittedTar, table: FileFacts
) -> Manifest:
    """Write the manifest, or return the one that another claim wrote first."""
    key = layout.manifest(tar.unit)
    manifest = _manifest(job, tar, table)
    reply = store.put(
        key,
        manifest.model_dump_json(indent=1).encode(),
        content_type=JSON,
        metadata={"token": tar.writer},
        if_absent=True,
    )
    return manifest if reply.fresh else Manifest.model_validate_json(store.get(key))


def read_manifest(store: Store, key: str) -> Manifest | None:
    """The manifest under this key; None where it is not written yet."""
    try:
        return Manifest.model_validate_json(store.get(key))
    except NotFound:
        return None


def times_from_rows(rows: Sequence[ShardRow]) -> ShardTimes:
    """What a tar's rows still tell of the time its unit took."""
    moments = [int(datetime.fromisoformat(row["created"]).timestamp() * 1000) for row in rows]
    return ShardTimes(
        device_ms=sum(row["text_ms"] + row["denoise_ms"] + row["decode_ms"] for row in rows),
        encode_ms=sum(row["encode_ms"] for row in rows),
        filter_ms=sum(row.get(FILTER_MS) or 0.0 for row in rows),
        started_ms=min(moments),
        finished_ms=max(moments),
    )


def stopwatch() -> Callable[[], float]:
    """A function that says how many milliseconds have passed since now."""
    start = time.monotonic()
    return lambda: (time.monotonic() - start) * 1000


def now_ms() -> int:
    """Milliseconds since 1970 (UTC)."""
    return int(time.time() * 1000)


def _manifest(job: Job, tar: CommittedTar, table: FileFacts) -> Manifest:
    rows, unit = tar.rows, tar.unit
    made = sum(row["status"] == "ok" for row in rows)
    if sorted(row["image"] for row in rows) != list(unit.indexes):
        raise FewstepError("the rows are not the unit's images", where=tar.facts.name)
    return Manifest(
        job=job.id,
        unit=unit.name,
        shard=unit.shard,
        first=unit.first,
        stop=unit.stop,
        count=len(rows),
        ok=made,
        failed=len(rows) - made,
        tar=tar.facts,
        parquet=table,
        token=tar.token,
        worker=rows[0]["worker"],
        attempt=tar.attempt,
        adopted=tar.token != tar.writer,
        status_dict=status_dict(rows),
        tokens_lost=sum(row["tokens_lost"] for row in rows),
        unet_calls=sum(row["unet_calls"] for row in rows if row["status"] == "ok"),
        times=tar.times,
        stages=stage_tallies(rows, tar.upload_share_ms),
        counts=value_counts(rows, job.rows.columns),
        settings=setting_tallies(rows, job.recipe),
        rejects=rejects_of(rows),
        marks=marks_of(rows),
        rejected=tar.rejected,
    )


def _name(key: str) -> str:
    return key.rpartition("/")[2]
