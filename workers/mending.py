"""Batches on a device that may fail: smaller ones, single images, more exact ones."""

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from jobs.job import Image
from jobs.recipe import Recipe
from jobs.records import TRACEBACK_MAX, LoadTimes
from workers.device_faults import DeviceLost, is_out_of_memory, is_sticky
from workers.peak import peak_bytes
from workers.render import Batch, BatchRenderer, Precision
from workers.rendered import Rendered
from workers.shapes import BatchShapes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Started:
    """A batch that was asked for, or what came of it where the device failed at once."""

    recipe: Recipe
    images: Sequence[Image]
    made: Batch | list[Rendered]
    #: When, by `time.perf_counter`.
    begun: float


@dataclass
class MendingRenderer:
    """Renders batches with one engine, whatever happens short of losing the device.

    Out of memory: half the batch, from then on. Another error: each image alone. A picture that
    is NaN or flat: the same seed again alone, the decoder in float32, then the UNet too.
    """

    batches: BatchRenderer
    shapes: BatchShapes
    #: The dtypes below float32 that this engine's nets are in, as what may mend a picture.
    remedies: tuple[Precision, ...] = ("own",)
    encoders: int = 1
    load_ms: float = 0.0
    load_times: LoadTimes = field(default_factory=LoadTimes)
    #: A GPU is asked for the next batch before it has finished this one.
    ahead: int = 0

    @property
    def memory_bytes(self) -> int:
        """The most memory it has held: of its GPU, or of its process on a CPU."""
        return peak_bytes(self.batches.device)

    def room(self, recipe: Recipe) -> int:
        """Images of this recipe in one batch."""
        return self.shapes.shaped(recipe).batch_images

    def draw_ahead(self, recipe: Recipe, images: Sequence[Image]) -> None:
        """Begin to draw the noise of images that will be rendered soon; raises DeviceLost."""
        try:
            self.batches.draw_ahead(self.shapes.shaped(recipe), images)
        except RuntimeError as error:
            if is_sticky(error):
                raise DeviceLost(f"the device failed: {error}"[:300]) from error
            # The batch itself draws what was not drawn ahead.
            log.warning("draw_ahead_failed first=%s error=%s", images[0].index, error)

    def start(self, recipe: Recipe, images: Sequence[Image]) -> Started:
        """Ask the device for a batch; raises DeviceLost."""
        shaped, begun = self.shapes.shaped(recipe), time.perf_counter()
        try:
            return Started(shaped, images, self.batches.render(shaped, images), begun)
        except RuntimeError as error:
            return Started(shaped, images, self._again(shaped, images, error), begun)

    def finish(self, started: Started) -> list[Rendered]:
        """Its images, in their order; raises DeviceLost."""
        made = started.made
        if isinstance(made, Batch):
            try:
                made = made.images
            except RuntimeError as error:
                made = self._again(started.recipe, started.images, error)
        if not self.load_times.first_batch_ms:
            passed = (time.perf_counter() - started.begun) * 1e3
            self.load_times = self.load_times.model_copy(update={"first_batch_ms": passed})
        return [
            self._mended(started.recipe, image, one) if one.kind in ("nan", "flat") else one
            for image, one in zip(started.images, made, strict=True)
        ]

    def _again(
        self, recipe: Recipe, images: Sequence[Image], error: RuntimeError
    ) -> list[Rendered]:
        if is_out_of_memory(error):
            return self._smaller(recipe, images, error)
        if is_sticky(error):
            raise DeviceLost(f"the device failed: {error}"[:300]) from error
        log.warning("batch_failed first=%s error=%s", images[0].index, error)
        _let_go(error)
        return [self._alone(recipe, image) for image in images]

    def _smaller(
        self, recipe: Recipe, images: Sequence[Image], error: RuntimeError
    ) -> list[Rendered]:
        """Once more with the cache emptied, then in batches of half the shape."""
        tried = recipe
        while True:
            log.warning("out_of_memory batch=%s error=%s", tried.batch_images, error)
            _let_go(error)
            try:
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                return self._in_batches(tried, images)
            except RuntimeError as again:
                if not is_out_of_memory(again):
                    return self._again(tried, images, again)
                error = again
            tried = self.shapes.halve(tried)

    def _in_batches(self, recipe: Recipe, images: Sequence[Image]) -> list[Rendered]:
        size = recipe.batch_images
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        return [one for part in parts for one in self.batches.render(recipe, part).images]

    def _alone(self, recipe: Recipe, image: Image) -> Rendered:
        try:
            return replace(self.batches.render(recipe, [image]).images[0], tries=2)
        except RuntimeError as error:
            if is_sticky(error):
                raise DeviceLost(f"the device failed: {error}"[:300]) from error
            return _failed(error)

    def _mended(self, recipe: Recipe, image: Image, broken: Rendered) -> Rendered:
        """The image by the first remedy that helps, or `broken` with what was tried."""
        tries = broken.tries
        for precision in self.remedies:
            tries += 1
            log.warning(
                "picture_again image=%s kind=%s with=%s", image.index, broken.kind, precision
            )
            try:
                one = self.batches.render(recipe, [image], precision).images[0]
            except RuntimeError as error:
                if is_sticky(error):
                    raise DeviceLost(f"the device failed: {error}"[:300]) from error
                one = _failed(error)
            if one.pixels is not None:
                return replace(one, tries=tries)
        return replace(broken, tries=tries, error=f"{broken.error}, {tries} times")


def remedies(decoder: torch.dtype, unet: torch.dtype) -> tuple[Precision, ...]:
    """What to try for a picture that came out broken, given the dtypes of both nets."""
    lower: list[Precision] = []
    if decoder != torch.float32:
        lower.append("exact_decoder")
    if unet != torch.float32:
        lower.append("exact")
    # In float32 there is nothing more exact: once more, against a fault of the moment.
    return tuple(lower) or ("own",)


def _let_go(error: RuntimeError) -> None:
    """Of the tensors of the batch that failed: its frames keep them while the error is at hand."""
    traceback.clear_frames(error.__traceback__)


def _failed(error: RuntimeError) -> Rendered:
    trace = "".join(traceback.format_exception(error))[-TRACEBACK_MAX:]
    return Rendered(None, f"rendering failed: {error}"[:500], 0, 0, "device", trace, tries=2)
