"""WebDataset tars for tests: the tiny model's scenes with their captions, or whatever is asked."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from workers.tiny.captions import canonical, draw_attributes
from workers.tiny.scenes import render

Member = tuple[str, bytes]


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    """A picture's file: a colour ramp, so that no two columns are the same."""
    ramp = np.linspace(0, 255, width * height * 3).astype(np.uint8).reshape(height, width, 3)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, kind)
    return out.getvalue()


def write_members(path: Path, members: Sequence[Member]) -> Path:
    """A tar of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_scenes(path: Path, count: int) -> Path:
    """A tar of `count` scenes of the tiny model, half of them with JSON captions alone."""
    rng = np.random.default_rng(5)
    attributes = draw_attributes(rng, count)
    members: list[Member] = []
    scenes = render(rng, attributes).pictures
    for number, (pixels, caption) in enumerate(zip(scenes, canonical(attributes), strict=True)):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        members.append((f"{number:05d}.png", out.getvalue()))
        if number % 2:
            members.append((f"{number:05d}.json", json.dumps({"prompt": caption}).encode()))
        else:
            members.append((f"{number:05d}.txt", caption.encode()))
    return write_members(path, members)
