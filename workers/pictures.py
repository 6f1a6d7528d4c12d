"""From pixels to a file and its record; runs on an encoder's thread."""

import hashlib
import time
import traceback

from jobs.job import Image
from jobs.records import TRACEBACK_MAX, ImageRecord, Picture
from workers.encode import EXTENSIONS, encode
from workers.provenance import settings_of
from workers.rendered import Rendered
from workers.work import Work


def picture_of(work: Work, image: Image, rendered: Rendered) -> Picture:
    """Encode one image and write its record; one that cannot be encoded is a failed record."""
    started = time.perf_counter()
    job = work.job
    data, error = b"", rendered.error
    kind, trace = rendered.kind, rendered.traceback
    if rendered.pixels is not None:
        try:
            data = encode(rendered.pixels, job.format, job.quality, settings_of(job, image))
        except (OSError, ValueError) as broken:
            error, kind = f"encoding failed: {broken}"[:500], "encode"
            trace = "".join(traceback.format_exception(broken))[-TRACEBACK_MAX:]
    key = work.layout.sample(image.index)
    spent = (time.perf_counter() - started) * 1e3
    record = ImageRecord(
        key=key,
        image=image.index,
        row=image.row_index,
        repeat=image.repeat,
        prompt=image.row.prompt,
        negative_prompt=image.row.negative_prompt,
        seed=image.seed,
        status="ok" if data and kind != "rejected" else "failed",
        error=error,
        error_kind=kind,
        traceback=trace,
        file_name=f"{key}.{EXTENSIONS[job.format]}" if data else "",
        sha256=hashlib.sha256(data).hexdigest() if data else "",
        bytes=len(data),
        tokens_lost=rendered.tokens_lost,
        attempt=work.held.lease.attempt + rendered.tries - 1,
        batch_images=rendered.batch_images,
        batch_position=rendered.position,
        created_ms=round(time.time() * 1e3),
        times=rendered.times.model_copy(update={"encode_ms": spent}),
        recipe=image.row.recipe,
        extra=image.row.extra,
        filtered=rendered.filtered,
    )
    return Picture(record=record, data=data)
