"""Captioned pictures as training sees them: which ones a step takes, and their pixels."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from jobs.captioned import CaptionedPicture
from jobs.captioned_check import BROKEN
from jobs.errors import InvalidInput


def split(count: int, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the pictures to train on and of those held out, drawn from the seed alone.

    Each side has at least one; raises InvalidInput for fewer than two pictures.
    """
    if count < 2:
        raise InvalidInput(
            f"{count} picture is too few", where="data", remedy="training and its test need two"
        )
    order = np.random.default_rng([seed, 9]).permutation(count).tolist()
    held = min(max(1, round(count * held_out)), count - 1)
    return sorted(order[held:]), sorted(order[:held])


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    found: list[int] = np.random.default_rng([seed, 10, epoch]).permutation(count).tolist()
    return found


def draw(
    rows: Sequence[int], seed: int, step: int, place: tuple[int, int], batch: int
) -> list[int]:
    """The rows of one step on process `place` (its rank, and how many there are).

    All processes together walk through the rows epoch by epoch; every step is a pure function of
    its number, so that a resumed run takes the pictures that an unbroken one would.
    """
    rank, world = place
    first = (step * world + rank) * batch
    found = []
    for position in range(first, first + batch):
        epoch, index = divmod(position, len(rows))
        found.append(rows[_order(len(rows), seed, epoch)[index]])
    return found


@dataclass(frozen=True)
class Cut:
    """A picture as the base sees it: pixels float [3, height, width] in -1..1."""

    pixels: Tensor
    #: SDXL's conditioning: height and width as they were, top and left of the cut, height and
    #: width of the cut.
    sizes: tuple[int, int, int, int, int, int]


def cut(picture: CaptionedPicture, width: int, height: int) -> Cut:
    """A picture scaled to cover `width` x `height`, and its middle; upright, without alpha.

    Raises InvalidInput naming tar and key where it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(picture.read())) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except BROKEN as error:
        raise InvalidInput(
            f"the picture cannot be decoded: {error}"[:200],
            where=f"{picture.tar}: {picture.key}",
            remedy="take it out of the dataset, or restore it",
        ) from error
    was_width, was_height = image.size
    scale = max(width / was_width, height / was_height)
    if scale != 1.0:
        size = (max(width, round(was_width * scale)), max(height, round(was_height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
    return Cut(pixels, (was_height, was_width, top, left, height, width))
