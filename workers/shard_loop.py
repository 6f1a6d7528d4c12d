"""A renderer's life without Ray: claim, render, commit, report, with one unit claimed ahead."""

import logging
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from redis import RedisError

from jobs.errors import BadConfiguration, FewstepError, LeaseLost, NoCapacity
from jobs.records import Maker
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from workers.claims import Claims
from workers.deliver import Delivery
from workers.device_faults import DeviceLost
from workers.leases import LeaseKeeper
from workers.work import Paused, RenderedShard, RendersShards, Work, WorkSource

log = logging.getLogger(__name__)

#: Rendered units that may wait for their upload: beyond it the device waits, not the memory.
COMMITS_AHEAD = 2
IDLE_S = (0.2, 2.0)


@dataclass
class ShardLoop:
    """Pulls units of one engine and delivers them, until drained.

    Three threads beside the keeper's: the caller's owns the device, one claims and fetches the
    next unit, one encodes and commits. A unit in any of them is held by its lease.
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
    state: str = "idle"
    #: Why it claims nothing, where something is wrong with its node.
    trouble: str = ""

    def __post_init__(self) -> None:
        self._claims = Claims(
            self.worker,
            self.engine_key,
            self.settings.lease_ms,
            self.queue,
            self.keeper,
            WorkSource(self.store, self.queue, self.settings.s3_prefix),
            self.draining,
        )
        self._delivery = Delivery(self.queue, self.store, self.keeper, self._claims, self.maker)
        self._fatal: FewstepError | None = None
        self._room = threading.BoundedSemaphore(COMMITS_AHEAD)
        self._last_scheduler = time.monotonic()

    @property
    def images_done(self) -> int:
        """Images delivered or adopted so far."""
        return self._delivery.images_done

    def run(self) -> None:
        """Render until drained; raises the error that makes going on pointless."""
        with (
            ThreadPoolExecutor(1, "claim") as claims,
            ThreadPoolExecutor(1, "commit") as commits,
        ):
            ahead = claims.submit(self._claims.next)
            idle = IDLE_S[0]
            while not self._over():
                work = self._result(ahead)
                if work is None:
                    idle = self._wait(idle)
                    ahead = claims.submit(self._claims.next)
                    continue
                idle = IDLE_S[0]
                ahead = claims.submit(self._claims.next)
                self._serve(work, commits)
            left = self._result(ahead)
            if left is not None:
                self._claims.release(left.held, "drained")
        if self._fatal is not None:
            raise self._fatal

    def _over(self) -> bool:
        return self.draining.is_set() or self._fatal is not None

    def _result(self, ahead: "Future[Work | None]") -> Work | None:
        try:
            return ahead.result()
        except FewstepError as error:
            self._note_fatal(error)
            return None

    def _wait(self, idle: float) -> float:
        """Wait for work, a little longer each time; leave where no scheduler lives."""
        self.trouble = self._claims.trouble
        self.state = "broken" if self.trouble else "idle"
        self.draining.wait(idle * random.uniform(0.8, 1.2))
        try:
            age = self.queue.scheduler_age_ms()
        except (FewstepError, RedisError) as error:
            # Who cannot ask does not know: only an answer counts against the scheduler.
            log.warning("scheduler_age_failed worker=%s error=%s", self.worker, error)
            return IDLE_S[1]
        if age is not None and age < self.settings.orphan_ms:
            self._last_scheduler = time.monotonic()
        elif (time.monotonic() - self._last_scheduler) * 1e3 > self.settings.orphan_ms:
            log.warning("orphaned worker=%s: no scheduler lives, leaving", self.worker)
            self.draining.set()
        return min(idle * 1.5, IDLE_S[1])

    def _serve(self, work: Work, commits: ThreadPoolExecutor) -> None:
        """Adopt a unit that an earlier renderer finished, or render it and hand it on."""
        self.state = "rendering"
        self.keeper.begin(work.held)
        try:
            if self._delivery.adopt(work):
                return
            shard = self.renderer.render(work, self._still_ours)
            work.held.progress = work.held.lease.stop
        except LeaseLost as error:
            log.warning("lease_lost unit=%s error=%s", work.held.lease.unit, error)
            # Of a job that ends, the queue waits for this word; a lease that is lost has none.
            self._claims.release(work.held, str(error))
            return
        except Paused:
            self._claims.release(work.held, "paused")
            return
        except (FewstepError, RedisError) as error:
            log.error("shard_failed unit=%s error=%s", work.held.lease.unit, error)
            self._claims.release(work.held, str(error))
            self._note_fatal(error)
            return
        # An hour of work without a look at the scheduler is no hour without a scheduler.
        self._last_scheduler = time.monotonic()
        self._room.acquire()
        commits.submit(self._commit, work, shard)

    def _commit(self, work: Work, shard: RenderedShard) -> None:
        try:
            error = self._delivery.commit(work, shard)
        finally:
            self._room.release()
        if error is not None:
            self._note_fatal(error)

    def _still_ours(self, work: Work, finished: int) -> bool:
        """Called between batches: whether to go on; raises LeaseLost where the lease is over."""
        work.held.progress = work.held.lease.first + work.unit.indexes.index(finished)
        self.keeper.moved()
        work.held.check(time.monotonic())
        return work.held.verdict != "pause"

    def _note_fatal(self, error: Exception) -> None:
        """Wrong keys, a broken device or a full disk do not mend themselves: stop, lose no unit."""
        if isinstance(error, BadConfiguration | DeviceLost | NoCapacity):
            self._fatal = error
