"""Pixels into files: PNG, JPEG and WebP that carry their prompt, seed and recipe."""

import io
import json

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

from jobs.job import Image, ImageFormat, Job

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

    PNG and WebP at quality 100 are lossless. Settings stand in PNG's `parameters` and `fewstep`
    texts, or as JSON in the EXIF user comment.
    """
    picture = Pillow.fromarray(pixels)
    target = io.BytesIO()
    text = json.dumps(settings, ensure_ascii=False, sort_keys=True)
    if form == "png":
        notes = PngInfo()
        notes.add_itxt("parameters", _parameters(settings))
        notes.add_itxt("fewstep", text)
        picture.save(target, "PNG", pnginfo=notes, compress_level=1)
        return target.getvalue()
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
    if form == "jpeg":
        picture.save(target, "JPEG", quality=quality, exif=exif)
    else:
        picture.save(target, "WEBP", quality=quality, lossless=quality == 100, exif=exif)
    return target.getvalue()


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
