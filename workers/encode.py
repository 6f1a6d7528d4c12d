"""Pixels into files: PNG, JPEG and WebP that carry their prompt, seed and recipe."""

import io
import json
import struct

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.ExifTags import Base

from jobs.job import Image, ImageFormat, Job
from workers.png import png_file

#: More JSON than this does not fit into an EXIF comment, two bytes a letter.
EXIF_LETTERS = 30_000

EXTENSIONS: dict[ImageFormat, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}


def settings_of(job: Job, image: Image) -> dict[str, object]:
    """What is needed to make the picture again, as it stands in its file."""
    recipe = job.recipe
    return {
        "prompt": image.row.prompt,
        "negative_prompt": image.row.negative_prompt,
        "seed": image.seed,
        "model": recipe.model,
        "model_revision": recipe.base.revision,
        "model_source": recipe.base.source,
        "accelerator": recipe.accelerator.name if recipe.accelerator else "",
        "accelerator_source": recipe.accelerator.weights.source if recipe.accelerator else "",
        "accelerator_weight": recipe.accelerator.weight if recipe.accelerator else 0.0,
        "styles": {style.name: style.weight for style in recipe.styles},
        "sampler": recipe.sampler,
        "sampler_settings": recipe.sampler_settings,
        "dtype": recipe.dtype,
        "steps": recipe.steps,
        "guidance": recipe.guidance,
        "width": recipe.width,
        "height": recipe.height,
        "engine_key": recipe.engine_key,
        "generator": f"fewstep {job.fewstep}",
    }


def encode(
    pixels: NDArray[np.uint8], form: ImageFormat, quality: int, settings: dict[str, object]
) -> bytes:
    """The file of a picture `[height, width, 3]`; the same pixels and settings, the same bytes.

    PNG and WebP at quality 100 are lossless. How much work goes into a file was chosen by
    measurement (docs/decisions/0006-codecs.md). Settings stand in PNG's `parameters` and `fewstep`
    texts, or as JSON in the EXIF user comment.
    """
    text = json.dumps(settings, ensure_ascii=False, sort_keys=True)
    if form == "png":
        return png_file(pixels, {"parameters": _parameters(settings), "fewstep": text})
    exif = _exif(settings, text)
    if form == "jpeg":
        file = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
        return _with_exif(file, exif)
    target = io.BytesIO()
    if quality == 100:
        how = {"lossless": True, "quality": 25, "method": 0}
    else:
        how = {"quality": quality, "method": 2}
    Pillow.fromarray(pixels).save(target, "WEBP", exif=exif, **how)
    return target.getvalue()


def _exif(settings: dict[str, object], text: str) -> bytes:
    """The settings as EXIF: `Exif`, two zero bytes, and a TIFF block of less than 64 KB."""
    if len(text) > EXIF_LETTERS:
        # EXIF holds 64 KB; the whole row is in the tar and in the parquet file.
        cut = {
            key: value[:1000] if isinstance(value, str) else value
            for key, value in settings.items()
        }
        text = json.dumps({**cut, "cut": True}, ensure_ascii=False, sort_keys=True)
    exif = Pillow.Exif()
    exif[Base.Software] = str(settings["generator"])
    # The EXIF user comment opens with eight bytes that name its character set.
    exif[Base.UserComment] = b"UNICODE\x00" + text.encode("utf-16-be")
    return exif.tobytes()


def _with_exif(jpeg: bytes, exif: bytes) -> bytes:
    """A JPEG file with an APP1 segment after its first two bytes, where readers look for it."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def _parameters(settings: dict[str, object]) -> str:
    """The form that common picture viewers read: prompt, negative prompt, settings."""
    lines = [str(settings["prompt"])]
    if settings["negative_prompt"]:
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    lines.append(
        f"Steps: {settings['steps']}, Sampler: {settings['sampler']}, "
        f"CFG scale: {settings['guidance']}, Seed: {settings['seed']}, "
        f"Size: {settings['width']}x{settings['height']}, Model: {settings['model']}"
    )
    return "\n".join(lines)
