"""How long it took until work went on: measured and reported, never asserted."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jobs.queue_values import LeaseRecord
from jobs.shard_queue import ShardQueue
from tests.chaos.world import IMAGES
from tests.servers import wait_until


@dataclass
class Recovery:
    """Looks at the queue past every proxy. `seconds` has one entry per fault struck."""

    queue: ShardQueue
    client: Any
    seconds: list[float] = field(default_factory=list)
    injected: int = 0

    def held_by(self, name: str) -> list[LeaseRecord]:
        """Leases of a renderer, whichever of its processes holds them."""
        return [one for one in self.queue.leases() if one.worker.rpartition(".")[0] == name]

    def after_death(self, struck: list[LeaseRecord], since: float) -> None:
        """Measure from `since` until every struck unit is another's, or done."""
        assert struck, "nobody held anything: the fault struck nothing"
        self.injected += 1
        wait_until(lambda: self.taken_over(struck), "the dead one's units to be taken over", 180)
        self.seconds.append(time.monotonic() - since)

    def taken_over(self, struck: list[LeaseRecord]) -> bool:
        """Whether every one of these units is another's, or done."""
        tokens = {(one.job_id, one.unit): one.token for one in self.queue.leases()}
        return all(self._gone_on(one, tokens) for one in struck)

    def _gone_on(self, one: LeaseRecord, tokens: dict[tuple[str, str], str]) -> bool:
        token = tokens.get((one.job_id, one.unit))
        if token is not None:
            return token != one.token
        return self.settled(one.job_id, one.unit)

    def settled(self, job_id: str, unit: str) -> bool:
        """Whether a unit is done, split or given up."""
        shard = int(unit.partition(":")[0])
        if self.client.getbit(self.queue.key(f"bits:{job_id}"), shard):
            return True
        pieces = self.queue.pieces(job_id)
        return unit in pieces.parts or (":" not in unit and shard in pieces.split)

    @contextmanager
    def outage(self, progress: Callable[[], int], images: int = IMAGES) -> Iterator[None]:
        """Something is away inside; measured is from its end until an image is settled."""
        assert progress() < images, "the job had ended before the fault"
        self.injected += 1
        yield
        self.until_progress(progress, time.monotonic(), images)

    def until_progress(
        self, progress: Callable[[], int], since: float, images: int = IMAGES
    ) -> None:
        """Measure from `since` until more images are settled than now, or all are."""
        before = progress()
        wait_until(lambda: progress() > before or progress() >= images, "work to go on", 180)
        self.seconds.append(time.monotonic() - since)
