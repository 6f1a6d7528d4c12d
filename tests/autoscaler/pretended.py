"""A scheduler whose renderers take a GPU that Ray believes in and torch does not have.

    python -m tests.autoscaler.pretended     in the place of `python -m scheduler`

All else is the product's: Ray gives the actor its whole GPU, the tiny model renders on the CPU.
"""

import dataclasses
import os
import sys
import time
from typing import Any

import scheduler.pool
import workers.loading
from scheduler.__main__ import main
from workers.actor import Renderer
from workers.rendered import Rendered

#: Seconds that the pretended device takes for an image at least.
PACE = "FEWSTEP_AUTOSCALER_PACE_S"
#: Bytes that its renderers say it has.
DEVICE_BYTES = 6_000_000_000


class PretendedDevice(Renderer):
    """A renderer that does not mind that its GPU is none, and is not too fast to be looked at."""

    def __init__(self, name: str, engine_key: str, recipe_json: str) -> None:
        workers.loading._check_device = lambda kind: None
        super().__init__(name, engine_key, recipe_json)

    def _load(self, *arguments: Any) -> Any:
        loop = super()._load(*arguments)
        if loop is not None and self._parts is not None:
            self._parts = dataclasses.replace(self._parts, device_memory=DEVICE_BYTES)
            pace, finish = float(os.environ[PACE]), loop.renderer.finish

            def paced(started: Any) -> Any:
                images = finish(started)
                time.sleep(pace * len(images))
                return [_slower(image, pace * 1e3) for image in images]

            loop.renderer.finish = paced
        return loop


def _slower(image: Rendered, ms: float) -> Rendered:
    """As if its device had taken so much longer: what an image costs decides who gets nodes."""
    times = image.times.model_copy(update={"denoise_ms": image.times.denoise_ms + ms})
    return dataclasses.replace(image, times=times)


if __name__ == "__main__":
    # Ray takes the class by its name: that of this module, not of whatever is run.
    from tests.autoscaler import pretended

    scheduler.pool.Renderer = pretended.PretendedDevice  # type: ignore[misc]
    sys.exit(main())
