"""The stages of a renderer: batches formed, made by the device, encoded, delivered."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from jobs.errors import FewstepError, LeaseLost
from jobs.job import Image
from jobs.records import Picture, ShardTimes
from workers.batches import BatchFormer, Flight, Formed
from workers.claims import Claims
from workers.leases import LeaseKeeper
from workers.pictures import picture_of
from workers.rendered import Rendered
from workers.rooms import Room
from workers.sieve import Sieve, settle
from workers.work import RenderedShard, RendersBatches, Work

log = logging.getLogger(__name__)

#: Bytes of pixels that may wait for an encoder, and of units that may wait for their upload.
PIXELS_WAITING = 256 << 20
UNITS_WAITING = 512 << 20
#: Units that may wait for their upload, however small.
MOST_UNITS = 32
#: Units uploaded at once.
UPLOADERS = 2
#: Before a node goes, so much time at least is kept for encoding and uploading a unit.
UPLOAD_S = 5.0


@dataclass
class Pipeline:
    """Takes units in and delivers them. One thread, the device's, calls everything here.

    Encoders and uploads have threads of their own. What they cannot take in time makes the
    device wait, and is written down (`stood_ms`). `changed` is called when a unit has left.
    """

    renderer: RendersBatches
    keeper: LeaseKeeper
    sieve: Sieve
    claims: Claims
    deliver: Callable[[Work, RenderedShard], FewstepError | None]
    failed: Callable[[FewstepError], None]
    changed: Callable[[], None]
    _started: deque[tuple[Formed, Any]] = field(default_factory=deque)
    #: Units that are not delivered yet and have images to render.
    _active: list[Flight] = field(default_factory=list)
    _stood: dict[str, float] = field(default_factory=dict)
    #: Images that came back from the device, and how long the latest upload took.
    _made: int = 0
    _upload_s: float = 0.0

    def __post_init__(self) -> None:
        self._former = BatchFormer(self.renderer.room)
        self._encoders = ThreadPoolExecutor(self.renderer.encoders, "encode")
        self._uploads = ThreadPoolExecutor(UPLOADERS, "upload")
        self._pixels = Room(PIXELS_WAITING)
        self._units = Room(UNITS_WAITING)

    @property
    def in_hand(self) -> bool:
        """Whether there is anything to render or to wait for on the device."""
        return bool(self._active)

    @property
    def lacking(self) -> int:
        """Images to claim so that one batch and the next are full; 0 where none are wanted."""
        if any(flight.suspect for flight in self._active):
            return 0
        return max(0, 2 * self._former.room - self._former.waiting) if self._active else 1

    def add(self, work: Work) -> None:
        """Take a unit in."""
        flight = Flight(work)
        self._active.append(flight)
        self._former.add(flight)

    def look(self) -> None:
        """Let go of units whose lease is over, and give back those whose job was paused."""
        for flight in list(self._active):
            held = flight.work.held
            try:
                held.check(time.monotonic())
            except LeaseLost as error:
                log.warning(
                    "lease_lost job=%s unit=%s error=%s", held.lease.job_id, held.lease.unit, error
                )
                self._let_go(flight)
                # Of a job that ends, the queue waits for this word; a lease that is lost has none.
                self.claims.release(held, str(error))
                continue
            if held.verdict == "pause":
                self._let_go(flight)
                self.claims.release(held, "paused")

    def give_back(self, reason: str, *, begun: bool) -> None:
        """Give back the units of which no image was taken, or, with `begun`, all of them."""
        for flight in list(self._active):
            if begun or not flight.taken:
                self._let_go(flight)
                self.claims.release(flight.work.held, reason)

    def give_back_late(self, reason: str, left_s: float, busy_s: float) -> None:
        """Give back the units that cannot be delivered in `left_s` seconds.

        At the pace so far: `busy_s` seconds of the device for all images that it has made.
        """
        if math.isinf(left_s):
            return
        pace_s = busy_s / self._made if self._made else 0.0
        need_s = max(UPLOAD_S, self._upload_s)
        for flight in list(self._active):
            need_s += pace_s * (len(flight.work.images) - len(flight.pictures))
            if need_s > left_s:
                self._let_go(flight)
                self.claims.release(flight.work.held, reason)

    def stood(self, stage: str, since: float) -> None:
        """Note that the device stood still for `stage` since that monotonic time."""
        spent = (time.monotonic() - since) * 1e3
        self._stood[stage] = self._stood.get(stage, 0.0) + spent

    def step(self, hurry: bool) -> bool:
        """Render the next batch if it is full, or any with `hurry`; whether anything was done.

        Raises DeviceLost.
        """
        ready = self._former.full() or (hurry and self._former.waiting > 0)
        formed = self._former.take() if ready and self._may_begin() else None
        if formed is not None:
            self._begin(formed)
            self._started.append((formed, self.renderer.start(formed.recipe, formed.images)))
        while len(self._started) > (self.renderer.ahead if formed else 0):
            self._finish(*self._started.popleft())
            if formed is None:
                return True
        return formed is not None

    def close(self) -> None:
        """Wait until everything that was rendered is delivered, or given up."""
        self._encoders.shutdown()
        self._uploads.shutdown()

    def _may_begin(self) -> bool:
        """A unit on which a process died waits until nothing else could die with it."""
        return not self._former.flights[0].suspect or len(self.keeper.held()) <= 1

    def _begin(self, formed: Formed) -> None:
        fresh = [flight.work.held for flight in formed.flights if not flight.started_ms]
        if fresh:
            self.keeper.begin(*fresh)
        for flight in formed.flights:
            if not flight.started_ms:
                flight.started_ms = round(time.time() * 1e3)
                flight.waited_ms = (time.monotonic() - flight.work.claimed_at) * 1e3
        first = formed.flights[0]
        for stage, spent in self._stood.items():
            first.stood_ms[stage] = first.stood_ms.get(stage, 0.0) + spent
        self._stood.clear()
        coming = self._former.coming(len(formed.places))
        if coming:
            recipe = coming[0].group.recipe
            self.renderer.draw_ahead(recipe, [place.image for place in coming])

    def _finish(self, formed: Formed, started: Any) -> None:
        images = self.renderer.finish(started)
        self.keeper.moved()
        self._made += len(images)
        for place, rendered in zip(formed.places, images, strict=True):
            place.flight.work.held.device_ms += rendered.times.device_ms
        for place, found in zip(formed.places, self.sieve.sift(formed.places, images), strict=True):
            flight = place.flight
            if found is not None and not flight.ended:
                flight.pictures[place.at] = self._encode(flight, place.image, found)
        for flight in formed.flights:
            if not flight.ended:
                self._onward(flight)

    def _onward(self, flight: Flight) -> None:
        """A unit whose images are all made leaves; one with images to try again waits for them."""
        held = flight.work.held
        if flight.rendered:
            settle(flight)
        # Behind its last image only once none is made again: a death then is another unit's doing.
        held.progress = held.lease.first + flight.finished
        if flight.rendered:
            self._hand_over(flight)
        elif flight.left:
            self._former.back(flight)

    def _encode(self, flight: Flight, image: Image, rendered: Rendered) -> Future[Picture]:
        size = 0 if rendered.pixels is None else rendered.pixels.nbytes
        self._enter(self._pixels, size, "encode")
        picture = self._encoders.submit(picture_of, flight.work, image, rendered)
        picture.add_done_callback(lambda _: self._pixels.leave(size))
        return picture

    def _hand_over(self, flight: Flight) -> None:
        """A unit whose images are all made goes to be uploaded."""
        self._active.remove(flight)
        size = sum(_pixel_bytes(flight.work, image) for image in flight.work.images)
        size = max(size, UNITS_WAITING // MOST_UNITS)
        self._enter(self._units, size, "store")
        times = ShardTimes(
            wait_ms=flight.waited_ms,
            load_ms=self.renderer.load_ms,
            load=self.renderer.load_times if self.renderer.load_ms else None,
            fetch_ms=flight.work.fetch_ms,
            device_ms=flight.work.held.device_ms,
            filter_ms=flight.filter_ms,
            work_stall_ms=flight.stood_ms.get("work", 0.0),
            encode_stall_ms=flight.stood_ms.get("encode", 0.0),
            store_stall_ms=flight.stood_ms.get("store", 0.0),
            memory_bytes=self.renderer.memory_bytes,
            started_ms=flight.started_ms,
        )
        # The engine was loaded once, for the first shard.
        self.renderer.load_ms = 0.0
        pictures = [flight.pictures[at] for at in range(len(flight.work.images))]
        shard = RenderedShard(pictures, times, times.device_ms, flight.duplicates)
        flight.leave()
        self._uploads.submit(self._upload, flight.work, shard, size)

    def _upload(self, work: Work, shard: RenderedShard, size: int) -> None:
        since = time.monotonic()
        try:
            error = self.deliver(work, shard)
        finally:
            self._upload_s = time.monotonic() - since
            self._units.leave(size)
        if error is not None:
            self.failed(error)
        self.changed()

    def _enter(self, room: Room, size: int, stage: str) -> None:
        since = time.monotonic()
        if room.enter(size):
            self.stood(stage, since)

    def _let_go(self, flight: Flight) -> None:
        flight.ended = True
        flight.leave()
        self._active.remove(flight)
        self._former.drop(flight)


def _pixel_bytes(work: Work, image: Image) -> int:
    own, recipe = image.row.recipe, work.job.recipe
    width = (own and own.width) or recipe.width
    return width * ((own and own.height) or recipe.height) * 3
