"""Claiming: the next unit of an engine with its rows, and giving units back."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from redis import RedisError

from jobs.errors import FewstepError, LeaseLost, Unreachable
from jobs.shard_queue import ShardQueue
from workers.device_faults import no_room
from workers.leases import Held, LeaseKeeper
from workers.work import Work, WorkSource

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Between two tries to reach a store that does not answer, while the lease is kept.
STORE_AWAY_S = 5.0
#: Units in one claim, however small they are.
MOST_UNITS = 32


@dataclass
class Claims:
    """Claims for one renderer. `next` is for one thread; the rest may be called by any."""

    worker: str
    engine_key: str
    lease_ms: int
    queue: ShardQueue
    keeper: LeaseKeeper
    source: WorkSource
    draining: threading.Event
    trouble: str = ""
    _nonce: str = field(default_factory=lambda: uuid.uuid4().hex)

    def next(self, images: int) -> list[Held]:
        """Units of about `images` images together; none where there are none, or Redis is away.

        One on which a process died comes last: nothing else may be claimed beside it. None too
        where the node has no room for what it would render (`trouble` says so).
        """
        self.trouble = no_room()
        if self.trouble:
            log.error("no_room worker=%s error=%s", self.worker, self.trouble)
        if self.draining.is_set() or self.trouble:
            return []
        sent = time.monotonic()
        try:
            leases = self.queue.claim(
                self.worker,
                self._nonce,
                self.engine_key,
                MOST_UNITS,
                self.lease_ms,
                images,
                ahead=True,
            )
        except (FewstepError, RedisError) as error:
            # The same nonce next time: should Redis have answered after all, those units are ours.
            log.warning("claim_failed worker=%s error=%s", self.worker, error)
            return []
        self._nonce = uuid.uuid4().hex
        return [self.keeper.hold(lease, sent) for lease in leases]

    def fetch(self, held: Held) -> Work | None:
        """The unit's rows; None where it was given back.

        Raises BadConfiguration where the store refuses us, or what Redis raises: the unit is given
        back before.
        """
        try:
            return self.outlast(held, lambda: self.source.fetch(held))
        except LeaseLost as error:
            log.warning(
                "lease_lost job=%s unit=%s error=%s", held.lease.job_id, held.lease.unit, error
            )
            self.release(held, str(error))
            return None
        except (FewstepError, RedisError) as error:
            log.error(
                "fetch_failed job=%s unit=%s error=%s", held.lease.job_id, held.lease.unit, error
            )
            self.release(held, f"its rows cannot be read: {error}")
            raise

    def outlast(self, held: Held, ask: Callable[[], T]) -> T:
        """What `ask` says, asked again while the store is away.

        The unit's lease is kept meanwhile, however long that is: an outage counts against no unit.
        Raises LeaseLost where the lease is lost all the same, or the renderer is told to leave.
        """
        while True:
            try:
                # A store that hangs is no device that hangs.
                with self.keeper.uploading():
                    return ask()
            except Unreachable as error:
                unit = held.lease.unit
                log.warning("store_away job=%s unit=%s error=%s", held.lease.job_id, unit, error)
                if self.draining.wait(STORE_AWAY_S):
                    raise LeaseLost("told to leave while the store is away", where=unit) from error
                held.check(time.monotonic())

    def release(self, held: Held, reason: str) -> None:
        """Give a unit back: it is offered again at once."""
        self._give_up(held, "release", reason)

    def crash(self, held: Held, reason: str) -> None:
        """Give a unit back as one that broke us: after a few such ends it is looked into."""
        self._give_up(held, "crash", reason)

    def _give_up(self, held: Held, kind: str, reason: str) -> None:
        self.keeper.drop(held)
        lease = held.lease
        try:
            self.queue.fail(
                lease.job_id,
                lease.unit,
                lease.token,
                "crash" if kind == "crash" else "release",
                reason[:200],
                progress=held.progress,
                device_ms=round(held.device_ms),
            )
        except (FewstepError, RedisError) as error:
            # The lease runs out by itself.
            log.warning("give_up_failed job=%s unit=%s error=%s", lease.job_id, lease.unit, error)
