"""How far a job may go: the values that the queue and its callers share."""

from dataclasses import dataclass
from typing import Literal

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
