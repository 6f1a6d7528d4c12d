"""Pixels into files: PNG, JPEG and WebP that carry their prompt, seed and recipe."""

import io
import struct

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.ExifTags import Base

from jobs.job import ImageFormat
from workers.png import png_file
from workers.provenance import fitting, parameters, settings_json, xmp

#: Where readers look for XMP: a PNG's text, the start of a JPEG's segment.
_PNG_XMP = "XML:com.adobe.xmp"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\x00"

EXTENSIONS: dict[ImageFormat, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}


def encode(
    pixels: NDArray[np.uint8], form: ImageFormat, quality: int, settings: dict[str, object]
) -> bytes:
    """The file of a picture `[height, width, 3]`; the same pixels and settings, the same bytes.

    PNG and WebP at quality 100 are lossless. How much work goes into a file was chosen by
    measurement (docs/decisions/0006-codecs.md). How the picture was made stands in the texts
    `parameters` (as web UIs read it) and `fewstep` (JSON) of a PNG, in EXIF's user comment and in
    XMP of the others; that a model made it, in the XMP of all.
    """
    if form == "png":
        texts = {"parameters": parameters(settings), "fewstep": settings_json(settings)}
        return png_file(pixels, texts | {_PNG_XMP: xmp(settings).decode()})
    comment, packet = fitting(settings)
    exif = _exif(settings, comment)
    if form == "jpeg":
        file = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
        return _with_segments(file, exif, _JPEG_XMP + packet)
    target = io.BytesIO()
    if quality == 100:
        how = {"lossless": True, "quality": 25, "method": 0}
    else:
        how = {"quality": quality, "method": 2}
    Pillow.fromarray(pixels).save(target, "WEBP", exif=exif, xmp=packet, **how)
    return target.getvalue()


def _exif(settings: dict[str, object], comment: bytes) -> bytes:
    """The settings as EXIF: `Exif`, two zero bytes, and a TIFF block of less than 64 KB."""
    exif = Pillow.Exif()
    exif[Base.Software] = str(settings["generator"])
    # The EXIF user comment opens with eight bytes that name its character set.
    exif[Base.UserComment] = b"UNICODE\x00" + comment
    return exif.tobytes()


def _with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG file with APP1 segments after its first two bytes, where readers look for them."""
    marked = [b"\xff\xe1" + struct.pack(">H", len(one) + 2) + one for one in segments]
    return b"".join([jpeg[:2], *marked, jpeg[2:]])
