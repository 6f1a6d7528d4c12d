"""The leases a renderer holds: renewed from a thread of their own while work moves."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from redis import RedisError

from jobs.errors import FewstepError, LeaseLost
from jobs.queue_values import Lease, RenewAnswer
from jobs.shard_queue import ShardQueue

log = logging.getLogger(__name__)

#: A renderer stops its own work this long before others may start it.
FENCE_MARGIN_MS = 5_000
#: How often a renderer looks whether a job was paused or cancelled: about once a batch. Renewing so
#: often would be as right, and a write for each lease.
LOOK_S = 1.0
_VERDICTS = {"run": "ok", "pause": "pause"}
#: Without a sampler step, a picture or an upload for this long, leases are no longer renewed.
STALL_S = 120.0
#: An upload may take this long (the store's client tries for ten minutes).
UPLOAD_S = 900.0
#: After this the process is given up: only a new one gets the device back.
HANG_S = 3 * STALL_S


@dataclass
class Held:
    """A lease and what is known of it; `deadline` is on this process's monotonic clock."""

    lease: Lease
    deadline: float
    #: First image that is not rendered: where a crash is to be looked for. None: claimed ahead.
    progress: int | None = None
    #: What the device has spent on the unit so far.
    device_ms: float = 0.0
    verdict: RenewAnswer = "ok"

    def check(self, now: float) -> None:
        """Raises LeaseLost where the work is no longer ours to do."""
        if self.verdict in ("lost", "cancel"):
            raise LeaseLost(f"the queue says {self.verdict}", where=self.lease.unit)
        if now >= self.deadline:
            raise LeaseLost("the lease ran out without being renewed", where=self.lease.unit)


@dataclass
class LeaseKeeper:
    """Renews the leases of one renderer and says that it lives.

    `queue` must be on a connection of its own with a short timeout: a renewal that waits behind
    a slow command is a lost lease. `about` gives what the heartbeat tells about the renderer.
    """

    queue: ShardQueue
    worker: str
    lease_ms: int
    renew_ms: int
    about: Callable[[], Mapping[str, str]]
    clock: Callable[[], float] = time.monotonic
    #: Called where the renderer hangs for good; Ray does not see that.
    on_hang: Callable[[], None] = lambda: None
    _uploads: list[float] = field(default_factory=list)
    _held: dict[str, Held] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _moved: float = 0.0
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to renew in the background."""
        self._moved = self.clock()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and take the renderer off the list; safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        try:
            self.queue.leave(self.worker)
        except (FewstepError, RedisError) as error:
            log.warning("leave_failed worker=%s error=%s", self.worker, error)

    def hold(self, lease: Lease, claimed_at: float) -> Held:
        """Keep `lease`, claimed (as sent, not as answered) at monotonic `claimed_at`."""
        held = Held(lease, self._fence(claimed_at))
        with self._lock:
            self._held[lease.token] = held
        self.moved()
        return held

    def begin(self, *begun: Held) -> None:
        """Say which units are in hand from now on: a death is their doing, not their neighbours'.

        Waits for Redis, as a unit may kill at once; an error is logged, the next beat says it.
        """
        for held in begun:
            held.progress = held.lease.first
        try:
            self._renew()
        except (FewstepError, RedisError) as error:
            log.warning("begin_failed worker=%s error=%s", self.worker, error)

    def drop(self, held: Held) -> None:
        """Stop renewing a lease that is done or given up."""
        with self._lock:
            self._held.pop(held.lease.token, None)

    def held(self) -> list[Held]:
        """The leases held now."""
        with self._lock:
            return list(self._held.values())

    def moved(self) -> None:
        """Note that work went on; without such news leases are left to run out."""
        self._moved = self.clock()

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """While inside, work counts as moving for up to `UPLOAD_S`."""
        started = self.clock()
        self._uploads.append(started)
        try:
            yield
        finally:
            self._uploads.remove(started)
            self.moved()

    def stalled_s(self) -> float:
        """How long nothing has moved."""
        now = self.clock()
        if any(now - started < UPLOAD_S for started in list(self._uploads)):
            return 0.0
        return now - self._moved

    def beat(self) -> None:
        """Say that the renderer lives and renew every lease once.

        Raises what Redis raises; leases that could not be renewed end by their deadline.
        """
        self.queue.heartbeat(self.worker, self.about())
        if not self.held():
            return
        if (stalled := self.stalled_s()) > STALL_S:
            log.error("stalled worker=%s seconds=%.0f", self.worker, stalled)
            if stalled > HANG_S:
                self.on_hang()
            return
        self._renew()

    def tell(self) -> None:
        """Beat now, where there is news; without Redis the next beat tells it."""
        try:
            self.beat()
        except (FewstepError, RedisError) as error:
            # Meanwhile each lease has its own deadline.
            log.warning("renew_failed worker=%s error=%s", self.worker, error)

    def _renew(self) -> None:
        held, sent = self.held(), self.clock()
        answers = self.queue.renew(
            self.worker,
            [one.lease for one in held],
            self.lease_ms,
            [one.progress for one in held],
            [round(one.device_ms) for one in held],
        )
        for one, answer in zip(held, answers, strict=True):
            one.verdict = answer
            if answer in ("ok", "pause"):
                one.deadline = self._fence(sent)

    def _fence(self, sent: float) -> float:
        margin = min(FENCE_MARGIN_MS, self.lease_ms // 4)
        return sent + (self.lease_ms - margin) / 1e3

    def _run(self) -> None:
        over = False
        while not over:
            try:
                self.tell()
                over = self._wait()
            except Exception:
                # A thread that ended here would be missed by nobody, and every lease would run out.
                log.exception("beat_broke worker=%s", self.worker)
                over = self._stop.wait(LOOK_S)

    def _wait(self) -> bool:
        """Wait for the next beat, less where a job was paused or cancelled; whether to end."""
        looks = max(1, round(self.renew_ms / 1e3 / LOOK_S))
        for _ in range(looks):
            if self._stop.wait(self.renew_ms / 1e3 / looks):
                return True
            if self._told():
                return False
        return False

    def _told(self) -> bool:
        """Whether a job of ours is in another state than at the last renewal."""
        held = [one for one in self.held() if one.verdict in ("ok", "pause")]
        if not held:
            return False
        try:
            states = self.queue.states([one.lease.job_id for one in held])
        except (FewstepError, RedisError):
            # The next renewal says what there is to say about it.
            return False
        pairs = zip(held, states, strict=True)
        return any(one.verdict != _VERDICTS.get(state, "cancel") for one, state in pairs)


def end_predecessor(queue: ShardQueue, name: str, worker: str, *, crashed: bool = True) -> int:
    """End the leases of this actor's earlier lives: processes that Ray has seen die, or, without
    `crashed`, engines of this process that Redis did not hear give a unit back; how many.

    Waiting for them to run out would be as safe and take up to a lease. Should one live after
    all (a node that Ray lost sight of), its token is a fence: it commits nothing any more.
    """
    why = "its renderer's process died" if crashed else "its renderer became another engine's"
    ended = 0
    for lease in queue.leases():
        if lease.worker.rpartition(".")[0] == name and lease.worker != worker:
            queue.fail(
                lease.job_id, lease.unit, lease.token, "crash" if crashed else "release", why
            )
            ended += 1
    return ended
