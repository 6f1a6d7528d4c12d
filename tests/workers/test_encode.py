"""Files hold the pixels they were given, and what is needed to make them again."""

import io
import json

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.ExifTags import Base

from workers.encode import encode


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8)


def settings(prompt: str) -> dict[str, object]:
    return {
        "prompt": prompt,
        "negative_prompt": "",
        "seed": 7,
        "model": "tiny",
        "sampler": "lcm",
        "steps": 4,
        "guidance": 1.0,
        "width": 48,
        "height": 64,
        "generator": "fewstep 0",
    }


@pytest.mark.parametrize(("form", "quality"), [("png", 95), ("webp", 100)])
def test_lossless(pixels: NDArray[np.uint8], form: str, quality: int) -> None:
    data = encode(pixels, form, quality, settings("x"))  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(Pillow.open(io.BytesIO(data))), pixels)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_same_bytes_again(pixels: NDArray[np.uint8], form: str) -> None:
    first, second = (encode(pixels, form, 90, settings("日本 🎨")) for _ in range(2))  # type: ignore[arg-type]
    assert first == second


@pytest.mark.parametrize("form", ["jpeg", "webp"])
@pytest.mark.parametrize("prompt", ["a red circle", "日本 🎨", "\x01" * 8000, "z" * 8000])
def test_the_comment_tells_how(pixels: NDArray[np.uint8], form: str, prompt: str) -> None:
    """Also where the prompt would not fit: it is cut, and says so."""
    data = encode(pixels, form, 90, settings(prompt))  # type: ignore[arg-type]
    comment = Pillow.open(io.BytesIO(data)).getexif()[Base.UserComment]
    told = json.loads(comment[8:].decode("utf-16-be"))
    assert told["seed"] == 7
    assert prompt.startswith(told["prompt"])
    assert told.get("cut", False) == (told["prompt"] != prompt)
