"""Rendering one shard: its batches through the engine, its pictures through the encoders."""

import hashlib
import logging
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from jobs.job import Image
from jobs.records import TRACEBACK_MAX, ImageRecord, Picture, ShardTimes, StageTimes
from workers.device_faults import DeviceLost, is_sticky
from workers.encode import EXTENSIONS, encode, settings_of
from workers.render import Batch, BatchRenderer, Rendered
from workers.work import Paused, RenderedShard, StillOurs, Work

log = logging.getLogger(__name__)


@dataclass
class ShardRenderer:
    """Renders shards with one engine and encodes their pictures on a pool of threads."""

    batches: BatchRenderer
    encoders: ThreadPoolExecutor
    load_ms: float = 0.0

    def render(self, work: Work, still_ours: StillOurs) -> RenderedShard:
        """Render every image of `work`.

        Raises LeaseLost or Paused where `still_ours` says so, and DeviceLost where the device
        does. An image that cannot be made becomes a failed record; the others go on.
        """
        started_ms = round(time.time() * 1e3)
        waited = time.monotonic() - work.claimed_at
        size = work.job.recipe.batch_images
        pictures: list[Future[Picture]] = []
        device_ms = 0.0
        for start in range(0, len(work.images), size):
            images = work.images[start : start + size]
            if not still_ours(work, images[0].index):
                raise Paused
            batch = self._render_batch(work, images)
            device_ms += _device_ms(batch.times) * len(images)
            for image, rendered in zip(images, batch.images, strict=True):
                pictures.append(self.encoders.submit(_picture, work, image, rendered, batch.times))
        times = ShardTimes(
            wait_ms=waited * 1e3,
            load_ms=self.load_ms,
            fetch_ms=work.fetch_ms,
            device_ms=device_ms,
            started_ms=started_ms,
        )
        # The engine was loaded once, for the first shard.
        self.load_ms = 0.0
        return RenderedShard(pictures, times, device_ms)

    def _render_batch(self, work: Work, images: Sequence[Image]) -> Batch:
        """Render a batch; where it fails as a whole, render its images one by one."""
        try:
            return self.batches.render(work.job.recipe, images)
        except torch.OutOfMemoryError as error:
            return self._render_again(work, images, error)
        except RuntimeError as error:
            _give_up_if_sticky(error)
            log.warning(
                "batch_failed job=%s first=%s error=%s", work.job.id, images[0].index, error
            )
        alone = [self._render_alone(work, image) for image in images]
        return Batch(
            [batch.images[0] for batch in alone],
            _mean([batch.times for batch in alone]),
        )

    def _render_again(
        self, work: Work, images: Sequence[Image], first: torch.OutOfMemoryError
    ) -> Batch:
        """Once more with the cache emptied: a batch has one shape, so that alone is no smaller."""
        log.warning("out_of_memory job=%s error=%s", work.job.id, first)
        torch.cuda.empty_cache()
        try:
            return self.batches.render(work.job.recipe, images)
        except torch.OutOfMemoryError as error:
            raise DeviceLost(
                f"a batch of {work.job.recipe.batch_images} does not fit: {error}"[:300],
                remedy="lower batch_images in the catalog, or use a larger GPU",
            ) from error

    def _render_alone(self, work: Work, image: Image) -> Batch:
        try:
            return self.batches.render(work.job.recipe, [image])
        except RuntimeError as error:
            _give_up_if_sticky(error)
            text = f"rendering failed: {error}"[:500]
            return Batch([Rendered(None, text, 0, 0, "device", _trace(error))], StageTimes())


def _give_up_if_sticky(error: RuntimeError) -> None:
    if is_sticky(error):
        raise DeviceLost(f"the device failed: {error}"[:300]) from error


def _trace(error: Exception) -> str:
    """The end of its traceback, which is where the error is."""
    return "".join(traceback.format_exception(error))[-TRACEBACK_MAX:]


def _device_ms(times: StageTimes) -> float:
    return times.text_ms + times.denoise_ms + times.decode_ms + times.transfer_ms


def _mean(times: Sequence[StageTimes]) -> StageTimes:
    names = StageTimes.model_fields
    return StageTimes(
        **{name: sum(getattr(one, name) for one in times) / len(times) for name in names}
    )


def _picture(work: Work, image: Image, rendered: Rendered, times: StageTimes) -> Picture:
    """Encode one image and write its record; runs on an encoder thread."""
    started = time.perf_counter()
    job = work.job
    data, error = b"", rendered.error
    kind, trace = rendered.kind, rendered.traceback
    if rendered.pixels is not None:
        try:
            data = encode(rendered.pixels, job.format, job.quality, settings_of(job, image))
        except (OSError, ValueError) as broken:
            error = f"encoding failed: {broken}"[:500]
            kind, trace = "encode", _trace(broken)
    key = work.layout.sample(image.index)
    record = ImageRecord(
        key=key,
        image=image.index,
        row=image.row_index,
        repeat=image.repeat,
        prompt=image.row.prompt,
        negative_prompt=image.row.negative_prompt,
        seed=image.seed,
        status="ok" if data else "failed",
        error=error,
        error_kind=kind,
        traceback=trace,
        file_name=f"{key}.{EXTENSIONS[job.format]}" if data else "",
        sha256=hashlib.sha256(data).hexdigest() if data else "",
        bytes=len(data),
        tokens_lost=rendered.tokens_lost,
        attempt=work.held.lease.attempt,
        batch_position=rendered.position,
        created_ms=round(time.time() * 1e3),
        times=times.model_copy(update={"encode_ms": (time.perf_counter() - started) * 1e3}),
        extra=image.row.extra,
    )
    return Picture(record=record, data=data)
