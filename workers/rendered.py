"""What the device made of one image: pixels, or why there are none. Knows no queue and no store."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jobs.records import ErrorKind, StageTimes
from jobs.rows import Scalar


@dataclass(frozen=True)
class Rendered:
    """One image as pixels `[height, width, 3]` uint8, or why there are none.

    One that a filter turned away (`kind`) has both.
    """

    pixels: NDArray[np.uint8] | None
    error: str
    tokens_lost: int
    position: int
    kind: ErrorKind = ""
    traceback: str = ""
    #: The shape of the batch it was made in, and how often it was rendered until it was this.
    batch_images: int = 0
    tries: int = 1
    times: StageTimes = field(default_factory=StageTimes)
    #: What the job's filters said of it, by column.
    filtered: dict[str, Scalar] = field(default_factory=dict)
