"""Batch shapes: how many images of a size fit on a device, remembered on its node."""

import hashlib
import json
import logging
import os
from pathlib import Path

from jobs.recipe import Recipe
from workers.device_faults import DeviceLost

log = logging.getLogger(__name__)


class BatchShapes:
    """The batch shape of each size that did not fit as the recipe has it.

    A picture's last bits depend on the shape of its batch, so a shape that was lowered once stays
    lowered for this device, engine and size: in this process, and through `folder` in the next.
    """

    def __init__(self, device: str, folder: Path | None = None) -> None:
        self._device = device
        self._folder = folder
        #: The lowered shape; None where none was lowered.
        self._known: dict[str, int | None] = {}

    def shaped(self, recipe: Recipe) -> Recipe:
        """The recipe with the batch shape that fits here: its own, or a smaller one."""
        key = self._key(recipe)
        if key not in self._known:
            self._known[key] = self._read(key)
        limit = self._known[key]
        # Not remembered: what one job asks for is no limit to the next one.
        images = recipe.batch_images if limit is None else min(limit, recipe.batch_images)
        return recipe.model_copy(update={"batch_images": images})

    def halve(self, recipe: Recipe) -> Recipe:
        """Half the shape that `recipe` has, or less where less is known. Raises DeviceLost at 1."""
        if recipe.batch_images == 1:
            raise DeviceLost(
                f"one image of {recipe.width}x{recipe.height} does not fit",
                where=self._device,
                remedy="use a larger GPU, or a smaller size",
            )
        key, images = self._key(recipe), recipe.batch_images // 2
        # Another process of this node, or a larger recipe here, may have found a smaller one.
        known = [one for one in (self._known.get(key), self._read(key)) if one is not None]
        images = min([images, *known])
        log.warning("batch_halved device=%s images=%s", self._device, images)
        self._known[key] = images
        self._write(key, images)
        return recipe.model_copy(update={"batch_images": images})

    def _key(self, recipe: Recipe) -> str:
        what = [self._device, recipe.engine_key, recipe.width, recipe.height, recipe.guided]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]

    def _read(self, key: str) -> int | None:
        if self._folder is None:
            return None
        try:
            images = int((self._folder / key).read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("shape_unread file=%s error=%s", self._folder / key, error)
            return None
        return images if images > 0 else None

    def _write(self, key: str, images: int) -> None:
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = self._folder / f"{key}.{os.getpid()}"
            fresh.write_text(str(images), encoding="ascii")
            fresh.replace(self._folder / key)
        except OSError as error:
            # The next process finds it out again.
            log.warning("shape_unwritten file=%s error=%s", self._folder / key, error)
