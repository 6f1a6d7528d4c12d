"""Units claimed and read ahead, so that the device waits for neither queue nor store."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from redis import RedisError

from jobs.errors import FewstepError, LeaseLost
from workers.claims import Claims
from workers.device_faults import exhausted
from workers.leases import Held
from workers.work import Work

log = logging.getLogger(__name__)

#: Units whose rows are read at once.
READERS = 4


class Prefetch:
    """Claims units on one thread and reads their rows on a few; its methods are for one thread.

    `adopt` says whether a unit lay finished in the store already; then it never arrives.
    `arrived` is called whenever there may be something new.
    """

    def __init__(
        self, claims: Claims, adopt: Callable[[Work], bool], arrived: Callable[[], None]
    ) -> None:
        self._claims = claims
        self._adopt = adopt
        self._arrived = arrived
        self._claimer = ThreadPoolExecutor(1, "claim")
        self._readers = ThreadPoolExecutor(READERS, "fetch")
        self._claim: Future[list[Held]] | None = None
        self._reading: deque[Future[Work | None]] = deque()
        #: Whether the last claim found nothing.
        self.dry = False

    @property
    def busy(self) -> bool:
        """Whether a claim is under way or units are being read."""
        return self._claim is not None or bool(self._reading)

    def ask(self, images: int) -> None:
        """Claim units of about so many images, unless a claim is under way or being read."""
        if not self.busy:
            self._claim = self._claimer.submit(self._claims.next, images)
            self._claim.add_done_callback(lambda _: self._arrived())

    def take(self) -> Iterator[Work]:
        """The units that have arrived since, in the order of their claims.

        Raises what a unit could not be read for; the next call goes on behind it.
        """
        if self._claim is not None and self._claim.done():
            self._begin_to_read(self._claim)
        while self._reading and self._reading[0].done():
            work = self._reading.popleft().result()
            if work is not None:
                yield work

    def close(self) -> Iterator[Work]:
        """End the threads; what they still bring, to be given back."""
        self._claimer.shutdown()
        if self._claim is not None:
            self._begin_to_read(self._claim)
        self._readers.shutdown()
        for reading in self._reading:
            try:
                work = reading.result()
            except (FewstepError, RedisError) as error:
                # The unit was given back where this was raised.
                log.warning("fetch_failed error=%s", error)
                continue
            if work is not None:
                yield work

    def _begin_to_read(self, claim: Future[list[Held]]) -> None:
        self._claim = None
        found = claim.result()
        self.dry = not found
        for held in found:
            reading = self._readers.submit(self._read, held)
            reading.add_done_callback(lambda _: self._arrived())
            self._reading.append(reading)

    def _read(self, held: Held) -> Work | None:
        try:
            work = self._claims.fetch(held)
            return None if work is None or self._finished(work) else work
        except (FewstepError, RedisError):
            # The unit was given back where this was raised.
            raise
        except Exception as error:
            self._broke(held, error)
            return None

    def _finished(self, work: Work) -> bool:
        """Whether the unit was adopted, or is no longer ours."""
        held = work.held
        try:
            return self._claims.outlast(held, lambda: self._adopt(work))
        except LeaseLost as error:
            log.warning(
                "lease_lost job=%s unit=%s error=%s", held.lease.job_id, held.lease.unit, error
            )
            self._claims.release(held, str(error))
            return True
        except (FewstepError, RedisError) as error:
            log.error(
                "adopt_failed job=%s unit=%s error=%s", held.lease.job_id, held.lease.unit, error
            )
            self._claims.release(held, str(error))
            raise

    def _broke(self, held: Held, error: Exception) -> None:
        lease, known = held.lease, exhausted(error)
        if known is not None:
            log.error("read_impossible job=%s unit=%s error=%s", lease.job_id, lease.unit, known)
            self._claims.release(held, str(known))
            raise known from error
        # A bug, or a file of another release: counted against the unit, or it would come back for
        # ever. Only a unit that was begun is counted against.
        log.exception("read_broke job=%s unit=%s", lease.job_id, lease.unit, exc_info=error)
        held.progress = held.lease.first
        self._claims.crash(held, f"{type(error).__name__}: {error}")
