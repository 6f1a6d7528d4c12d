"""A renderer's life without Ray: claim, render, commit, report, with one shard claimed ahead."""

import logging
import random
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from redis import RedisError

from jobs.commit import adopt_unit, commit_unit
from jobs.errors import BadConfiguration, FewstepError, LeaseLost
from jobs.records import Maker, Picture, ShardTimes
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from workers.device_faults import DeviceLost
from workers.leases import Held, LeaseKeeper
from workers.work import Paused, RendersShards, Work, WorkSource

log = logging.getLogger(__name__)

#: Rendered shards that may wait for their upload: beyond it the device waits, not the memory.
COMMITS_AHEAD = 2
IDLE_S = (0.2, 2.0)


@dataclass
class ShardLoop:
    """Pulls shards of one engine and delivers them, until drained.

    Three threads beside the keeper's: the caller's owns the device, one claims and fetches the
    next shard, one encodes and commits. A shard in any of them is held by its lease.
    """

    worker: str
    engine_key: str
    settings: Settings
    queue: ShardQueue
    store: Store
    keeper: LeaseKeeper
    renderer: RendersShards
    maker: Maker
    draining: threading.Event = field(default_factory=threading.Event)
    images_done: int = 0
    device_ms: float = 0.0
    state: str = "idle"

    def __post_init__(self) -> None:
        self._source = WorkSource(self.store, self.queue, self.settings.s3_prefix)
        self._fatal: FewstepError | None = None
        self._room = threading.BoundedSemaphore(COMMITS_AHEAD)
        self._last_scheduler = time.monotonic()

    def run(self) -> None:
        """Render until drained; raises the error that makes going on pointless."""
        with (
            ThreadPoolExecutor(1, "claim") as claims,
            ThreadPoolExecutor(1, "commit") as commits,
        ):
            ahead: Future[Work | None] = claims.submit(self._claim)
            idle = IDLE_S[0]
            while not self._over():
                work = ahead.result()
                if work is None:
                    idle = self._wait(idle)
                    ahead = claims.submit(self._claim)
                    continue
                idle = IDLE_S[0]
                ahead = claims.submit(self._claim)
                self._serve(work, commits)
            self._give_back(ahead.result())
        if self._fatal is not None:
            raise self._fatal

    def _over(self) -> bool:
        return self.draining.is_set() or self._fatal is not None

    # ---- claim ----

    def _claim(self) -> Work | None:
        """The next shard with its rows; None where there is none, or Redis does not answer."""
        if self._over():
            return None
        sent = time.monotonic()
        nonce = uuid.uuid4().hex
        try:
            leases = self.queue.claim(
                self.worker, nonce, self.engine_key, 1, self.settings.lease_ms
            )
        except (FewstepError, RedisError) as error:
            log.warning("claim_failed worker=%s error=%s", self.worker, error)
            return None
        if not leases:
            return None
        held = self.keeper.hold(leases[0], sent)
        try:
            return self._source.fetch(held)
        except FewstepError as error:
            log.warning("fetch_failed unit=%s error=%s", held.lease.unit, error)
            self._release(held, f"rows cannot be read: {error}")
            self._note_fatal(error)
            return None

    def _wait(self, idle: float) -> float:
        """Wait for work, a little longer each time; leave where no scheduler lives."""
        self.state = "idle"
        self.draining.wait(idle * random.uniform(0.8, 1.2))
        try:
            age = self.queue.scheduler_age_ms()
        except (FewstepError, RedisError) as error:
            log.warning("scheduler_age_failed worker=%s error=%s", self.worker, error)
        else:
            if age is not None and age < self.settings.orphan_ms:
                self._last_scheduler = time.monotonic()
        if (time.monotonic() - self._last_scheduler) * 1e3 > self.settings.orphan_ms:
            log.warning("orphaned worker=%s: no scheduler lives, leaving", self.worker)
            self.draining.set()
        return min(idle * 1.5, IDLE_S[1])

    # ---- render ----

    def _serve(self, work: Work, commits: ThreadPoolExecutor) -> None:
        """Adopt a shard that an earlier renderer finished, or render it and hand it on."""
        self.state = "rendering"
        try:
            if self._adopt(work):
                return
            shard = self.renderer.render(work, self._still_ours)
            self.device_ms += shard.device_ms
        except LeaseLost as error:
            log.warning("lease_lost unit=%s error=%s", work.held.lease.unit, error)
            self.keeper.drop(work.held)
            return
        except Paused:
            self._release(work.held, "paused")
            return
        except FewstepError as error:
            log.error("shard_failed unit=%s error=%s", work.held.lease.unit, error)
            self._release(work.held, str(error))
            self._note_fatal(error)
            return
        self._room.acquire()
        commits.submit(self._commit, work, shard.pictures, shard.times, shard.device_ms)

    def _still_ours(self, work: Work, finished: int) -> bool:
        """Called between batches: whether to go on; raises LeaseLost where the lease is over."""
        work.held.progress = finished
        self.keeper.moved()
        work.held.check(time.monotonic())
        return work.held.verdict != "pause"

    def _adopt(self, work: Work) -> bool:
        """Whether the shard's tar was there already: then only what derives from it is written."""
        lease = work.held.lease
        found = adopt_unit(
            self.store,
            self.queue,
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
        return True

    # ---- commit, report ----

    def _commit(
        self,
        work: Work,
        pictures: list[Future[Picture]],
        times: ShardTimes,
        device_ms: float,
    ) -> None:
        lease = work.held.lease
        try:
            started = time.perf_counter()
            encoded = [picture.result() for picture in pictures]
            times = times.model_copy(update={"encode_ms": (time.perf_counter() - started) * 1e3})
            work.held.check(time.monotonic())
            result = commit_unit(
                self.store,
                self.queue,
                work.job,
                work.layout,
                work.unit,
                lease.token,
                lease.attempt - 1,
                encoded,
                self.maker,
                times,
            )
            self._report(work, result.manifest.failed, device_ms)
        except LeaseLost as error:
            # Somebody else has this shard, or has it done: our pictures are not needed. Whoever
            # claims it next adopts what is there.
            log.warning("commit_lost unit=%s error=%s", lease.unit, error)
            self._release(work.held, str(error))
        except FewstepError as error:
            log.error("commit_failed unit=%s error=%s", lease.unit, error)
            self._release(work.held, str(error))
            self._note_fatal(error)
        finally:
            self._room.release()

    def _report(self, work: Work, failed: int, device_ms: float) -> None:
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
        self.images_done += work.unit.images
        log.info("shard_done job=%s unit=%s answer=%s", lease.job_id, lease.unit, answer)

    def _give_back(self, work: Work | None) -> None:
        if work is not None:
            self._release(work.held, "drained")

    def _release(self, held: Held, reason: str) -> None:
        self.keeper.drop(held)
        lease = held.lease
        try:
            self.queue.fail(lease.job_id, lease.unit, lease.token, "release", reason[:200])
        except (FewstepError, RedisError) as error:
            # The lease runs out by itself.
            log.warning("release_failed unit=%s error=%s", lease.unit, error)

    def _note_fatal(self, error: FewstepError) -> None:
        """Wrong keys or a broken device do not mend themselves: stop, keep the shards whole."""
        if isinstance(error, BadConfiguration | DeviceLost):
            self._fatal = error
