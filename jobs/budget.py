"""The budget of a job: how many images, how much of devices, until when; what of it is spent."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AwareDatetime,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from jobs.limits import Limit, Limits
from jobs.recipe import Frozen

_NUMBER = re.compile(r"\s*[-+]?[\d.]+\s*$")
#: How the command line names each limit.
OPTIONS: dict[str, str] = {
    "max_images": "--max-images",
    "max_device_seconds": "--max-device-seconds",
    "deadline": "--deadline",
}


def _moment(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """`value` as pydantic reads it, or what is wrong in our words.

    A number is none: seconds and milliseconds are easily taken for each other.
    """
    number = isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.match(value))
    try:
        if not number:
            return read(value)
    except ValidationError:
        pass
    raise PydanticCustomError(
        "moment", "a deadline is a moment with its time zone, such as 2026-12-01T18:00Z"
    )


class Budget(Frozen):
    """Where a job ends although more of it could be made; what is None does not end it."""

    #: Images that are let through: the first so many.
    max_images: int | None = Field(default=None, ge=1, le=10**13)
    #: Seconds of devices, as renderers report them with each shard.
    max_device_seconds: float | None = Field(default=None, gt=0, le=1e9)
    #: A moment with its zone, such as 2026-12-01T18:00:00Z.
    deadline: Annotated[AwareDatetime, WrapValidator(_moment)] | None = Field(
        default=None, strict=False
    )

    @property
    def deadline_ms(self) -> int | None:
        """The deadline in milliseconds since 1970 (UTC)."""
        return None if self.deadline is None else round(self.deadline.timestamp() * 1000)

    def images_of(self, images: int) -> int:
        """How many of a job's images it lets through."""
        return images if self.max_images is None else min(images, self.max_images)

    def only(self) -> "Budget":
        """The three limits alone, of whatever has them."""
        return Budget(
            max_images=self.max_images,
            max_device_seconds=self.max_device_seconds,
            deadline=self.deadline,
        )

    def limits(self, images: int, shard_images: int, before_ms: int = 0) -> Limits:
        """What the queue is told, beside the number of images, of a job of `images` images."""
        through = self.images_of(images)
        device = self.max_device_seconds
        return Limits(
            cut=through < images and through % shard_images > 0,
            device_ms=None if device is None else max(1, round(device * 1000)),
            deadline_ms=self.deadline_ms,
            before_ms=before_ms,
        )


def moment(ms: int) -> datetime:
    """Milliseconds since 1970 as a moment."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def spent(limits: Limits, device_ms: int, now_ms: int) -> Limit | None:
    """The limit that a job is at which spent `device_ms` of devices in all."""
    if limits.device_ms is not None and device_ms >= limits.device_ms:
        return "max_device_seconds"
    if limits.deadline_ms is not None and now_ms >= limits.deadline_ms:
        return "deadline"
    return None
