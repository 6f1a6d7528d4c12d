"""Limits of a job in the queue: how far it may go, and what becomes of it there."""

from dataclasses import dataclass
from typing import Literal, cast

from jobs.queue_script import QueueScript

#: What stopped a job: so many images were let through, so long worked for, or it is too late.
Limit = Literal["max_images", "max_device_seconds", "deadline"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a job may go; None: as far as it likes. Its images are limited by `images` itself."""

    #: Whether its last image is not the last one of a shard, so that the rest may follow later.
    cut: bool = False
    #: Milliseconds of devices, and the moment (since 1970, UTC), from which on nothing is begun.
    device_ms: int | None = None
    deadline_ms: int | None = None
    #: Milliseconds of devices that were spent before the queue knew the job.
    before_ms: int = 0

    @property
    def words(self) -> tuple[int | str, int | str]:
        """The two limits as the script takes them."""
        return (
            "" if self.device_ms is None else self.device_ms,
            "" if self.deadline_ms is None else self.deadline_ms,
        )


UNLIMITED = Limits()


class QueueLimits(QueueScript):
    """Stopping a job at its limit, and letting it go on."""

    def stop(self, job_id: str, limit: Limit) -> str:
        """Hand out no more of a job that reached a limit; the state it is in now, or "unknown".

        Units in flight are given back at their next batch; then it waits to be finished.
        """
        return cast(str, self._op("stop", job_id, limit))

    def limit(self, job_id: str, images: int, limits: Limits) -> str:
        """Set the limits of a job that goes on; `images` may only rise.

        The state it is in, "restoring" while it is read back, or "unknown": only `run` and `pause`
        have taken it.
        """
        return cast(str, self._op("limit", job_id, images, int(limits.cut), *limits.words))

    def forget(self, job_id: str) -> str:
        """Forget a job that is closed, so that it may be restored and go on; the state it was in.

        One that is not closed stays as it is.
        """
        return cast(str, self._op("forget", job_id))
