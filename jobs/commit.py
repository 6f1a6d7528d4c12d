"""The commit: how a unit's pictures become part of the dataset, once and for good.

    failed.jsonl, rejected.tar -> TAR (the commit point) -> other forms, if wanted -> parquet
        -> rejected pictures, if any -> manifest -> done

A process may die between any two of these. Before the tar nothing is committed, and the unit is
rendered again; after it the next claim adopts the tar and writes what is missing.

Where the store honours `If-None-Match: *`, it lets one tar through. Where it does not, each claim
stages its tar under its token, the arbiter names one winner for ever, and whoever comes copies
the winner's tar to the final name: the same bytes, however often. The parquet file follows from
what was staged, so that it too has the same bytes whoever writes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from jobs.derived_files import (
    CommittedTar,
    now_ms,
    read_manifest,
    stopwatch,
    times_from_rows,
    write_manifest,
    write_table,
)
from jobs.errors import LeaseLost
from jobs.job import Job
from jobs.layout import JobLayout, Unit
from jobs.manifest import FileFacts, Manifest
from jobs.records import Maker, Picture, ShardTimes
from jobs.rejected import keep_rejected, stage_rejected
from jobs.shard_row import ShardRow, shard_row
from jobs.shard_tar import CONTENT_TYPE, read_tar
from jobs.staging import (
    TarFile,
    copy_to_final,
    downloaded,
    failed_rows,
    known_upload_ms,
    put_failed,
    put_upload_ms,
    remove_staged,
    stage_tar,
    tar_file,
)
from jobs.store import Store
from jobs.unit_forms import put_forms

#: Called with the name of each step just done; tests die in it.
Failpoint = Callable[[str], None]

#: A token that holds no lease: asking the arbiter with it decides nothing.
NOBODY = "-"


class Arbiter(Protocol):
    """Decides whose staged tar counts where the store cannot (the queue is one)."""

    def win(self, job_id: str, unit: str, token: str, /) -> str:
        """The unit's winner, for ever the same: `token` if it holds the lease and is first.

        "" where nobody has won yet and `token` holds no lease.
        """
        ...


@dataclass(frozen=True, slots=True)
class LeaseArbiter:
    """An arbiter asked about one lease: in a later round the queue has other names for its unit."""

    arbiter: Arbiter
    queue_id: str
    queue_unit: str

    def win(self, _job_id: str, _unit: str, token: str, /) -> str:
        """The winner of the lease's unit, by the queue's names."""
        return self.arbiter.win(self.queue_id, self.queue_unit, token)


@dataclass(frozen=True, slots=True)
class Committed:
    """A unit that is in the dataset for good; say done for it."""

    manifest: Manifest


def commit_unit(
    store: Store,
    arbiter: Arbiter,
    job: Job,
    layout: JobLayout,
    unit: Unit,
    token: str,
    attempt: int,
    pictures: Sequence[Picture],
    maker: Maker,
    times: ShardTimes,
    *,
    failpoint: Failpoint = lambda step: None,
) -> Committed:
    """Commit the unit's pictures, one per image, failed ones without data.

    `attempt` counts the unit's crashes before this claim. Raises LeaseLost where a tar is
    there already or the arbiter knows the token no more: nothing of ours counts, adopt.
    """
    claim = _Claim(store, arbiter, job, layout, unit, token, attempt, failpoint)
    claim.check(pictures)
    rows = [shard_row(job, layout, unit, picture.record, maker) for picture in pictures]
    put_failed(store, layout, unit, token, rows)
    stage_rejected(store, layout, unit, token, pictures, rows)
    with tar_file(pictures, rows) as tar:
        etag, upload_ms = claim.put_tar(tar, rows)
        claim.put_objects(tar)
        facts = claim.facts(tar, etag)
    times = times.model_copy(update={"upload_ms": upload_ms, "finished_ms": now_ms()})
    return claim.complete(CommittedTar(unit, facts, rows, token, token, attempt, times, upload_ms))


def adopt_unit(
    store: Store,
    arbiter: Arbiter,
    job: Job,
    layout: JobLayout,
    unit: Unit,
    token: str,
    attempt: int,
    *,
    failpoint: Failpoint = lambda step: None,
) -> Committed | None:
    """Finish what an earlier claim committed; None where it committed nothing: render.

    To be asked before rendering, and again after `commit_unit` raised LeaseLost.
    """
    claim = _Claim(store, arbiter, job, layout, unit, token, attempt, failpoint)
    found = store.head(layout.tar(unit))
    if found and (manifest := read_manifest(store, layout.manifest(unit))):
        return Committed(manifest)
    winner = ""
    if not store.honours_absent:
        # Copied again even where it is there: its first copy may have been cut off.
        winner = arbiter.win(job.id, unit.name, NOBODY)
        found = (winner and copy_to_final(store, layout, unit, winner)) or found
    if found is None:
        return None
    maker_token = winner or found.metadata.get("token", "")
    with downloaded(store, found) as tar:
        made = read_tar(tar.file)
        claim.put_objects(tar)
        facts = claim.facts(tar, found.etag)
    rows = [*made, *failed_rows(store, layout, unit, maker_token, made)]
    upload_ms = known_upload_ms(store, layout, unit, maker_token, found)
    return claim.complete(
        CommittedTar(
            unit, facts, rows, maker_token, token, attempt, times_from_rows(rows), upload_ms
        )
    )


@dataclass(frozen=True, slots=True)
class _Claim:
    """One claim's hold on one unit, and the steps it takes."""

    store: Store
    arbiter: Arbiter
    job: Job
    layout: JobLayout
    unit: Unit
    token: str
    attempt: int
    failpoint: Failpoint

    def check(self, pictures: Sequence[Picture]) -> None:
        """Raises ValueError where these are not the unit's images, each once, in order."""
        images = [picture.record.image for picture in pictures]
        if images != list(self.unit.indexes):
            raise ValueError(f"these are not the images of unit {self.unit.name}")

    def facts(self, tar: TarFile, etag: str) -> FileFacts:
        """The tar as the manifest tells it."""
        name = self.layout.tar(self.unit).rpartition("/")[2]
        return FileFacts(name=name, bytes=tar.bytes, sha256=tar.sha256, etag=etag)

    def put_tar(self, tar: TarFile, rows: Sequence[ShardRow]) -> tuple[str, float]:
        """The commit point; returns the tar's etag and the milliseconds of writing it."""
        metadata = {
            "token": self.token,
            "count": str(len(rows)),
            "failed": str(sum(row["status"] != "ok" for row in rows)),
            "sha256": tar.sha256,
        }
        passed = stopwatch()
        if not self.store.honours_absent:
            return self._stage_and_win(tar, metadata)
        reply = self.store.put_file(
            self.layout.tar(self.unit),
            tar.file,
            content_type=CONTENT_TYPE,
            metadata=metadata,
            if_absent=True,
        )
        if not reply.stored:
            raise self._beaten("another claim has committed it")
        if not reply.fresh and not self._is_there(tar):
            raise self._lost("this claim has committed it before")
        upload_ms = passed()
        self.failpoint("tar_put")
        return reply.etag, upload_ms

    def _stage_and_win(self, tar: TarFile, metadata: dict[str, str]) -> tuple[str, float]:
        store, layout, unit, token = self.store, self.layout, self.unit, self.token
        # Else a claim that says everything twice would stage other bytes than it committed.
        there = store.head(layout.tar(unit))
        if there and there.metadata.get("token", self.token) != self.token:
            raise self._beaten("another claim has committed it")
        if there:
            raise self._lost("this claim has committed it before")
        passed = stopwatch()
        stage_tar(store, layout, unit, token, tar, metadata)
        upload_ms = passed()
        put_upload_ms(store, layout, unit, token, upload_ms)
        self.failpoint("staged")
        winner = self.arbiter.win(self.job.id, unit.name, token)
        if winner != token:
            raise self._beaten(f"claim {winner} has won it" if winner else "the lease is over")
        self.failpoint("won")
        # The arbiter may have lost its memory since another claim won and copied.
        if store.head(layout.tar(unit)) and not self._is_there(tar):
            raise self._lost("another tar is there")
        copy = copy_to_final(store, layout, unit, token)
        if copy is None:
            raise self._lost("its staged tar was adopted and removed")
        self.failpoint("tar_put")
        return copy.etag, upload_ms

    def _is_there(self, tar: TarFile) -> bool:
        found = self.store.head(self.layout.tar(self.unit))
        return found is not None and found.metadata.get("sha256") == tar.sha256

    def put_objects(self, tar: TarFile) -> None:
        """The pictures in another form too, where the job wants that."""
        if put_forms(self.store, self.layout, self.job, self.unit, tar.file):
            self.failpoint("objects_put")

    def complete(self, tar: CommittedTar) -> Committed:
        """Write what follows from the tar, and remove what was staged for it."""
        table = write_table(self.store, self.layout, self.job, tar)
        self.failpoint("table_put")
        if any(row["error_kind"] == "rejected" for row in tar.rows):
            tar = replace(tar, rejected=keep_rejected(self.store, self.layout, tar.unit, tar.token))
            self.failpoint("rejected_put")
        manifest = write_manifest(self.store, self.layout, self.job, tar, table)
        self.failpoint("manifest_put")
        remove_staged(self.store, self.layout, self.unit, tar.token)
        return Committed(manifest)

    def _beaten(self, why: str) -> LeaseLost:
        """Lost to another claim: what we staged is of no use to anybody."""
        remove_staged(self.store, self.layout, self.unit, self.token)
        return self._lost(why)

    def _lost(self, why: str) -> LeaseLost:
        return LeaseLost(why, where=f"job {self.job.id}, unit {self.unit.name}")
