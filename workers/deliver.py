"""Delivering: a rendered unit into the dataset, or one that lies there already."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from redis import RedisError

from jobs.commit import Committed, LeaseArbiter, adopt_unit, commit_unit
from jobs.errors import BadConfiguration, FewstepError, LeaseLost, Unreachable
from jobs.queue_values import DoneAnswer
from jobs.records import Maker
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.tallies import adopted, rendered
from workers.claims import Claims
from workers.device_faults import exhausted
from workers.duplicate import as_duplicate
from workers.leases import LeaseKeeper
from workers.work import RenderedShard, Work

log = logging.getLogger(__name__)


@dataclass
class Delivery:
    """Commits units and says done for one renderer; several threads may call it at once."""

    queue: ShardQueue
    store: Store
    keeper: LeaseKeeper
    claims: Claims
    maker: Maker
    images_done: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def adopt(self, work: Work) -> bool:
        """Whether the unit's tar was there already: then only what derives from it is written."""
        lease = work.held.lease
        with self.keeper.uploading():
            found = adopt_unit(
                self.store,
                LeaseArbiter(self.queue, lease.job_id, lease.unit),
                work.job,
                work.layout,
                work.unit,
                lease.token,
                lease.attempt - 1,
            )
        if found is None:
            return False
        log.info("adopted job=%s unit=%s", lease.job_id, lease.unit)
        self._report(work, found.manifest.failed, 0.0)
        self._tally(work, adopted())
        return True

    def commit(self, work: Work, shard: RenderedShard) -> FewstepError | None:
        """Commit a rendered unit; the error that makes going on pointless, if there is one.

        Runs on a thread whose result nobody waits for: whatever goes wrong ends the lease here.
        """
        lease = work.held.lease
        try:
            self._commit(work, shard)
        except LeaseLost as error:
            # Somebody else has this unit, or has it done: our pictures are not needed. Whoever
            # claims it next adopts what is there.
            log.warning("commit_lost job=%s unit=%s error=%s", lease.job_id, lease.unit, error)
            self.claims.release(work.held, str(error))
        except BadConfiguration as error:
            log.error("commit_refused job=%s unit=%s error=%s", lease.job_id, lease.unit, error)
            self.claims.release(work.held, str(error))
            return error
        except (FewstepError, RedisError) as error:
            log.error("commit_failed job=%s unit=%s error=%s", lease.job_id, lease.unit, error)
            self.claims.release(work.held, str(error))
        except Exception as error:
            return self._broke(work, error)
        return None

    def _broke(self, work: Work, error: Exception) -> FewstepError | None:
        lease, known = work.held.lease, exhausted(error)
        if known is not None:
            log.error("commit_impossible job=%s unit=%s error=%s", lease.job_id, lease.unit, known)
            self.claims.release(work.held, str(known))
            return known
        # A bug: counted against the unit, or it would come back for ever.
        log.exception("commit_broke job=%s unit=%s", lease.job_id, lease.unit, exc_info=error)
        self.claims.crash(work.held, f"{type(error).__name__}: {error}")
        return None

    def _commit(self, work: Work, shard: RenderedShard) -> None:
        lease = work.held.lease
        started = time.perf_counter()
        pictures = []
        for picture in shard.pictures:
            made = picture.result()
            found = shard.duplicates.get(made.record.image)
            pictures.append(made if found is None else as_duplicate(made, found))
            self.keeper.moved()
        encode_ms = (time.perf_counter() - started) * 1e3
        times = shard.times.model_copy(update={"encode_ms": encode_ms})
        work.held.check(time.monotonic())
        write = partial(
            commit_unit,
            self.store,
            LeaseArbiter(self.queue, lease.job_id, lease.unit),
            work.job,
            work.layout,
            work.unit,
            lease.token,
            lease.attempt - 1,
            pictures,
            self.maker,
            times,
        )
        manifest = self._write(work, write).manifest
        answer = self._report(work, manifest.failed, shard.device_ms)
        records = [picture.record for picture in pictures]
        self._tally(work, rendered(records, times, manifest.times.upload_ms, answer))

    def _tally(self, work: Work, tallies: Mapping[str, float]) -> None:
        """Add to the counters of `/metrics`; where Redis is away just now they miss a unit."""
        lease = work.held.lease
        try:
            self.queue.note_totals(tallies)
        except (FewstepError, RedisError) as error:
            log.warning("tally_lost job=%s unit=%s error=%s", lease.job_id, lease.unit, error)

    def _write(self, work: Work, write: Callable[[], Committed]) -> Committed:
        """Commit; where the store is away, the pictures are kept until it is back."""
        try:
            with self.keeper.uploading():
                return write()
        except Unreachable as error:
            lease = work.held.lease
            log.warning("commit_waits job=%s unit=%s error=%s", lease.job_id, lease.unit, error)
        # A unit that fails again although the store answers is given back, and that counts.
        self.claims.outlast(work.held, partial(self.store.head, work.layout.job))
        with self.keeper.uploading():
            return write()

    def _report(self, work: Work, failed: int, device_ms: float) -> DoneAnswer:
        lease = work.held.lease
        answer = self.queue.done(
            lease.job_id,
            lease.unit,
            lease.token,
            failed,
            round(device_ms),
            arbiter="s3" if self.store.honours_absent else "redis",
        )
        self.keeper.drop(work.held)
        self.keeper.moved()
        with self._counting:
            self.images_done += work.unit.images
        log.info("shard_done job=%s unit=%s answer=%s", lease.job_id, lease.unit, answer)
        return answer
