"""Files hold the pixels they were given, and what is needed to make them again."""

import io
import json
import sys
import threading
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.ExifTags import Base

from workers.encode import encode
from workers.png import png_file
from workers.provenance import parameters


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


HARD = ["a red circle", "日本 🎨", "\x01" * 8000, "z" * 8000, "&<\">'\ufffe\x85\n", "🎨" * 8000]
ATTRIBUTE = "{{{}}}{}".format
IPTC = ATTRIBUTE("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "DigitalSourceType")


def told_by_xmp(data: bytes) -> dict[str, str]:
    """The properties in a file's XMP packet, by their full names."""
    picture = Pillow.open(io.BytesIO(data))
    found = picture.info.get("xmp") or picture.info["XML:com.adobe.xmp"]
    text = found if isinstance(found, str) else found.decode()
    (description,) = ElementTree.fromstring(text.encode()).iter(
        ATTRIBUTE("http://www.w3.org/1999/02/22-rdf-syntax-ns#", "Description")
    )
    return dict(description.attrib)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("prompt", HARD, ids=range(len(HARD)))
def test_every_file_says_that_a_model_made_it(
    pixels: NDArray[np.uint8], form: str, prompt: str
) -> None:
    data = encode(pixels, form, 90, settings(prompt))  # type: ignore[arg-type]
    told = told_by_xmp(data)
    assert told[IPTC].endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert told[ATTRIBUTE("http://ns.adobe.com/xap/1.0/", "CreatorTool")] == "fewstep 0"


@pytest.mark.parametrize("form", ["jpeg", "webp"])
@pytest.mark.parametrize("prompt", HARD, ids=range(len(HARD)))
def test_comment_and_xmp_tell_how(pixels: NDArray[np.uint8], form: str, prompt: str) -> None:
    """Also where the prompt would not fit: it is cut, and says so."""
    data = encode(pixels, form, 90, settings(prompt))  # type: ignore[arg-type]
    told = json.loads(told_by_xmp(data)[ATTRIBUTE("urn:fewstep:", "settings")])
    assert told["seed"] == 7
    assert prompt.startswith(told["prompt"])
    assert told.get("cut", False) == (told["prompt"] != prompt)
    comment = Pillow.open(io.BytesIO(data)).getexif()[Base.UserComment]
    text = comment.removeprefix(b"UNICODE\x00").decode("utf-16-be")
    assert text.startswith(told["prompt"])
    assert "Seed: 7" in text.rpartition("\n")[2]


def test_web_uis_find_what_they_fill_in() -> None:
    """The prompt, `Negative prompt: `, and one last line of names and values."""
    made = settings("a red circle") | {"negative_prompt": "blur", "model_sha256": "ab" * 32}
    prompt, negative, facts = parameters(made).split("\n")
    assert (prompt, negative) == ("a red circle", "Negative prompt: blur")
    assert dict(fact.split(": ") for fact in facts.split(", ")) == {
        "Steps": "4",
        "Sampler": "LCM",
        "CFG scale": "1.0",
        "Seed": "7",
        "Size": "48x64",
        "Model hash": "ab" * 5,
        "Model": "tiny",
        "Version": "fewstep-0",
    }


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_lossy_files_hold_the_same_picture(form: str) -> None:
    """Colours in their order and their place: a smooth ramp comes back within 8 of 255."""
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    flipped, half = ramp[::-1], np.full(96, 128, np.uint8)
    wanted = np.stack([np.tile(one, (80, 1)) for one in (ramp, flipped, half)], axis=-1)
    data = encode(wanted, form, 95, settings("x"))  # type: ignore[arg-type]
    found = np.asarray(Pillow.open(io.BytesIO(data)))
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 8


def pictures() -> dict[str, NDArray[np.uint8]]:
    source = np.random.default_rng(2)
    ramp = np.arange(48 * 40 * 3, dtype=np.uint32).reshape(48, 40, 3)
    return {
        "one pixel": np.full((1, 1, 3), 200, np.uint8),
        "one row": source.integers(0, 256, (1, 33, 3), dtype=np.uint8),
        "one column": source.integers(0, 256, (33, 1, 3), dtype=np.uint8),
        "flat": np.zeros((64, 64, 3), np.uint8),
        "ramp": (ramp % 251).astype(np.uint8),
        "extremes": source.choice(np.array([0, 1, 254, 255], np.uint8), (50, 70, 3)),
        "a view": source.integers(0, 256, (64, 64, 4), dtype=np.uint8)[:, ::-1, :3],
    }


@pytest.mark.parametrize("name", pictures())
def test_pillow_reads_the_png_that_we_wrote(name: str) -> None:
    """Every pixel, every checksum, every text."""
    wanted = pictures()[name]
    texts = {"parameters": "a\nb", "fewstep": '{"prompt": "日本 🎨"}'}
    data = png_file(wanted, texts)
    Pillow.open(io.BytesIO(data)).verify()
    found = Pillow.open(io.BytesIO(data))
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), wanted)
    assert found.text == texts  # type: ignore[attr-defined]


def test_what_is_no_rgb_picture_is_refused() -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match="no RGB picture"):
            png_file(wrong, {})  # type: ignore[arg-type]


@pytest.fixture
def no_turns() -> Iterator[None]:
    """A thread keeps the GIL until it gives it up by itself."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("no_turns")
@pytest.mark.parametrize(("form", "quality"), [("png", 95), ("jpeg", 95), ("webp", 95)])
def test_encoding_leaves_other_threads_the_gil(form: str, quality: int) -> None:
    """Another thread moves on while a picture is being encoded, not only afterwards.

    On a busy machine it may get no turn in so short a time: once in many is enough, as a codec
    that holds the lock never lets it.
    """
    big = np.random.default_rng(3).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)

    def moved_on() -> bool:
        begun, ended = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            encode(big, form, quality, settings("x"))  # type: ignore[arg-type]
            ended.set()

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        found = not ended.is_set()
        thread.join()
        return found

    assert any(moved_on() for _ in range(20))
