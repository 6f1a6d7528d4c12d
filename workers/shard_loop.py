"""A renderer's life without Ray: claim, render, deliver, report, until drained."""

import logging
import random
import threading
import time
from dataclasses import dataclass, field

from redis import RedisError

from jobs.errors import BadConfiguration, FewstepError, NoCapacity
from jobs.records import Maker
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from workers.claims import Claims
from workers.deliver import Delivery
from workers.device_faults import DeviceLost
from workers.leases import LeaseKeeper
from workers.notice import Notice
from workers.pipeline import Pipeline
from workers.prefetch import Prefetch
from workers.sieve import Sieve
from workers.work import RendersBatches, WorkSource

log = logging.getLogger(__name__)

IDLE_S = (0.2, 2.0)
#: A batch that is not full waits this long for units that are on their way.
FILL_S = 0.25
#: How long the device's thread sleeps at most before it looks at its leases again.
LOOK_S = 0.2


@dataclass
class ShardLoop:
    """Pulls units of one engine and delivers them, until drained.

    The caller's thread owns the device; claiming, reading, encoding and uploading have threads of
    their own (`Prefetch`, `Pipeline`). A unit in any of them is held by its lease.
    """

    worker: str
    engine_key: str
    settings: Settings
    queue: ShardQueue
    store: Store
    keeper: LeaseKeeper
    renderer: RendersBatches
    maker: Maker
    draining: Notice = field(default_factory=Notice)
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
        self._wake = threading.Event()
        self._idle = IDLE_S[0]
        #: When the device's thread last rendered, or began to wait for its first unit.
        self._turned = time.monotonic()
        self._last_scheduler = time.monotonic()
        #: Seconds in which batches were rendered so far.
        self.busy_s = 0.0

    @property
    def images_done(self) -> int:
        """Images delivered or adopted so far."""
        return self._delivery.images_done

    def run(self) -> None:
        """Render until drained; raises the error that makes going on pointless."""
        prefetch = Prefetch(self._claims, self._delivery.adopt, self._wake.set)
        pipeline = Pipeline(
            self.renderer,
            self.keeper,
            Sieve(self.settings, self.keeper.moved),
            self._claims,
            self._delivery.commit,
            self._note_fatal,
            self._wake.set,
        )
        try:
            while not self._over() or pipeline.in_hand:
                self._wake.clear()
                self._turn(prefetch, pipeline)
        finally:
            self._close(prefetch, pipeline)
        if self._fatal is not None:
            raise self._fatal

    def _close(self, prefetch: Prefetch, pipeline: Pipeline) -> None:
        """Whatever reading ahead ends with, what was rendered is delivered."""
        try:
            for work in prefetch.close():
                self._claims.release(work.held, "drained")
        finally:
            pipeline.close()

    def _over(self) -> bool:
        return self.draining.is_set() or self._fatal is not None

    def _turn(self, prefetch: Prefetch, pipeline: Pipeline) -> None:
        """Take in what has arrived, ask for more, and render one batch or wait."""
        self._arrivals(prefetch, pipeline)
        pipeline.look()
        if self._over():
            pipeline.give_back("drained", begun=self._fatal is not None)
            pipeline.give_back_late("its node goes sooner", self.draining.left_s(), self.busy_s)
        nothing_comes = self._over() or (prefetch.dry and not prefetch.busy)
        if nothing_comes and not pipeline.in_hand and not self._over():
            self._wait()
        if pipeline.lacking and not self._over():
            prefetch.ask(pipeline.lacking)
        overdue = time.monotonic() - self._turned > FILL_S
        if self._step(pipeline, hurry=nothing_comes or overdue):
            self._turned = time.monotonic()
            return
        since, expected = time.monotonic(), pipeline.in_hand or prefetch.busy
        if not pipeline.in_hand:
            self._turned = since
        if not self._over() or pipeline.in_hand:
            self._wake.wait(LOOK_S)
        if expected:
            pipeline.stood("work", since)

    def _step(self, pipeline: Pipeline, *, hurry: bool) -> bool:
        begun = time.monotonic()
        try:
            done = pipeline.step(hurry)
        except DeviceLost as error:
            log.error("device_lost worker=%s error=%s", self.worker, error)
            self._note_fatal(error)
            pipeline.give_back(str(error), begun=True)
            return True
        if done:
            self.state, self._idle = "rendering", IDLE_S[0]
            self.busy_s += time.monotonic() - begun
            # An hour of work without a look at the scheduler is no hour without a scheduler.
            self._last_scheduler = time.monotonic()
        return done

    def _arrivals(self, prefetch: Prefetch, pipeline: Pipeline) -> None:
        try:
            for work in prefetch.take():
                pipeline.add(work)
        except (FewstepError, RedisError) as error:
            log.error("claim_failed worker=%s error=%s", self.worker, error)
            self._note_fatal(error)

    def _wait(self) -> None:
        """Wait for work, a little longer each time; leave where no scheduler lives."""
        self.trouble = self._claims.trouble
        self.state = "broken" if self.trouble else "idle"
        self.draining.wait(self._idle * random.uniform(0.8, 1.2))
        self._idle = min(self._idle * 1.5, IDLE_S[1])
        try:
            age = self.queue.scheduler_age_ms()
        except (FewstepError, RedisError) as error:
            # Who cannot ask does not know: only an answer counts against the scheduler.
            log.warning("scheduler_age_failed worker=%s error=%s", self.worker, error)
            return
        if age is not None and age < self.settings.orphan_ms:
            self._last_scheduler = time.monotonic()
        elif (time.monotonic() - self._last_scheduler) * 1e3 > self.settings.orphan_ms:
            log.warning("orphaned worker=%s", self.worker)
            self.draining.set()

    def _note_fatal(self, error: Exception) -> None:
        """Wrong keys, a broken device or a full disk do not mend themselves: stop, lose no unit."""
        if isinstance(error, BadConfiguration | DeviceLost | NoCapacity):
            self._fatal = error
