"""What a picture's file costs: fewstep's codecs beside Pillow's, and others that are installed.

Times are processor time of one thread. Every file is decoded by Pillow and compared. The whole
table (`python -m benchmarks.codecs`) is behind docs/decisions/0006-codecs.md; `make bench` has the
lines of what renderers write.
"""

import io
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from benchmarks.measure import Line, alternate, quicker
from benchmarks.workload import Scale
from jobs.job import ImageFormat
from workers.encode import encode

ROW = "codecs"
ROUNDS = 5
QUALITY = 95
SIZES = (512, 1024)
SETTINGS: dict[str, object] = {
    "prompt": "a big red circle on the left",
    "negative_prompt": "",
    "seed": 7,
    "sampler": "lcm",
    "steps": 4,
    "guidance": 1.0,
    "width": 0,
    "height": 0,
    "model": "tiny",
    "generator": "fewstep",
}
Pixels = NDArray[np.uint8]
Codec = Callable[[Pixels], bytes]


def run(scale: Scale) -> list[Line]:
    """A line for each format and edge; raises where a PNG does not decode to its picture."""
    formats: tuple[ImageFormat, ...] = ("png", "jpeg", "webp")
    return [_line(form, edge, scale) for edge in scale.edges for form in formats]


def _line(form: ImageFormat, edge: int, scale: Scale) -> Line:
    pixels = natural(edge)
    options = {} if form == "png" else {"quality": QUALITY}
    codecs = {
        "ours": lambda one: encode(one, form, QUALITY, SETTINGS),
        "theirs": by_pillow(form.upper(), **options),
    }
    files = {side: codec(pixels) for side, codec in codecs.items()}
    if form == "png" and not np.array_equal(_decoded(files["ours"]), pixels):
        raise RuntimeError("the PNG file does not decode to its picture")
    figures = alternate(
        {
            side: lambda _, codec=codec: _milliseconds(codec, pixels)
            for side, codec in codecs.items()
        },
        scale.rounds,
    )
    at = "" if form == "png" else f" at {QUALITY}"
    sizes = {side: len(data) / 1e3 for side, data in files.items()}
    return quicker(
        ROW,
        f"{form.upper()}{at}, {edge}x{edge}",
        f"Pillow default{at}",
        figures["ours"],
        figures["theirs"],
        note=f"{sizes['ours']:.0f} KB, Pillow {sizes['theirs']:.0f} KB; processor time",
    )


def _milliseconds(codec: Codec, pixels: Pixels) -> float:
    started = time.thread_time()
    codec(pixels)
    return (time.thread_time() - started) * 1e3


def _decoded(data: bytes) -> Pixels:
    with Pillow.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def natural(size: int, seed: int = 1) -> Pixels:
    """A picture `[size, size, 3]` with the 1/f spectrum of photographs, and a little grain."""
    source = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1 / size
    channels = []
    for _ in range(3):
        waves = np.fft.rfft2(source.standard_normal((size, size))) / frequency**1.5
        plane = np.fft.irfft2(waves, (size, size))
        channels.append(plane / plane.std())
    # Channels of photographs are nearly equal.
    mixed = 0.85 * channels[0][..., None] + 0.15 * np.stack(channels, axis=-1)
    grain = source.standard_normal((size, size, 3)) * 1.2
    return np.clip(mixed * 48 + 128 + grain, 0, 255).astype(np.uint8)


def by_pillow(form: str, **options: object) -> Codec:
    """Pillow's file in `form`."""

    def made(pixels: Pixels) -> bytes:
        target = io.BytesIO()
        Pillow.fromarray(pixels).save(target, form, **options)
        return target.getvalue()

    return made


def ours() -> dict[str, Codec]:
    """What renderers write, metadata included."""
    return {
        "fewstep PNG": lambda pixels: encode(pixels, "png", QUALITY, SETTINGS),
        "fewstep JPEG 95": lambda pixels: encode(pixels, "jpeg", QUALITY, SETTINGS),
        "fewstep WebP 95": lambda pixels: encode(pixels, "webp", QUALITY, SETTINGS),
        "fewstep WebP 100 (lossless)": lambda pixels: encode(pixels, "webp", 100, SETTINGS),
    }


def theirs() -> dict[str, Codec]:
    """Pillow's own settings."""
    return {
        "Pillow PNG (default, level 6)": by_pillow("PNG"),
        "Pillow PNG level 1": by_pillow("PNG", compress_level=1),
        "Pillow JPEG 95": by_pillow("JPEG", quality=95),
        "Pillow WebP 95 (default method)": by_pillow("WEBP", quality=95),
        "Pillow WebP lossless (default method)": by_pillow("WEBP", lossless=True),
    }


def others() -> dict[str, Codec]:
    """Further libraries that were weighed (docs/decisions), as far as they are installed."""
    found: dict[str, Codec] = {}
    try:
        import cv2

        found["opencv PNG level 1"] = lambda p: cv2.imencode(
            ".png", p[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )[1].tobytes()
    except ImportError:
        pass
    try:
        import imagecodecs

        found["imagecodecs PNG level 1"] = lambda p: bytes(imagecodecs.png_encode(p, level=1))
    except ImportError:
        pass
    try:
        import fpng_py

        found["fpng_py"] = lambda p: fpng_py.fpng_encode_image_to_memory(
            p.tobytes(), p.shape[1], p.shape[0], 3
        )
    except ImportError:
        pass
    try:
        import simplejpeg

        found["simplejpeg JPEG 95"] = lambda p: simplejpeg.encode_jpeg(p, quality=95)
    except ImportError:
        pass
    return found


def measure(codec: Codec, pixels: Pixels) -> tuple[float, bytes]:
    """Median milliseconds of processor time, and the file."""
    data = codec(pixels)
    return statistics.median(_milliseconds(codec, pixels) for _ in range(ROUNDS)), data


def main() -> int:
    """Print one table, and one JSON line for programs."""
    pictures = {size: natural(size) for size in SIZES}
    rows = []
    print(f"{'codec':<40}" + "".join(f"{f'{size}: ms':>12}{'KB':>8}" for size in SIZES) + "  same")
    for name, codec in {**theirs(), **ours(), **others()}.items():
        row: dict[str, object] = {"codec": name}
        line, same = f"{name:<40}", []
        for size, pixels in pictures.items():
            ms, data = measure(codec, pixels)
            same.append(np.array_equal(_decoded(data), pixels))
            row |= {f"ms_{size}": round(ms, 2), f"bytes_{size}": len(data), "exact": all(same)}
            line += f"{ms:>12.1f}{len(data) / 1000:>8.0f}"
        print(line + ("  exact" if all(same) else "  lossy"))
        rows.append(row)
    print(json.dumps({"machine": platform.machine(), "rounds": ROUNDS, "codecs": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
