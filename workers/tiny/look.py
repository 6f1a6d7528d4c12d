"""Looking while training: contact sheets and a quick reading of what the pictures show."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from workers.tiny import cache_dir
from workers.tiny.captions import canonical, draw_attributes
from workers.tiny.classifier import agreement, load_judge, read
from workers.tiny.evaluate import Way, sample


def contact_sheet(
    pictures: NDArray[np.uint8], columns: int, path: Path, zoom: int = 2, gap: int = 2
) -> None:
    """Write pictures [n, h, w, 3] as one PNG in rows of ``columns``, enlarged without blur."""
    n, side = len(pictures), pictures.shape[1]
    rows = -(-n // columns)
    sheet = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = (k // columns) * (side + gap), (k % columns) * (side + gap)
        sheet[top : top + side, left : left + side] = picture
    size = (sheet.shape[1] * zoom, sheet.shape[0] * zoom)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST).save(path, optimize=True)


@torch.no_grad()
def quick_look(pipeline: Any, way: Way, name: str, n: int = 64) -> dict[str, float]:
    """Sample ``n`` fixed prompts, write their sheet to the cache, return the shares that agree."""
    wanted = draw_attributes(np.random.default_rng(11), n)
    pictures = sample(pipeline, way, canonical(wanted), seed=1000)
    contact_sheet(pictures[:48], 8, cache_dir() / f"look_{name}.png")
    found, _ = read(load_judge(0), pictures)
    return {key: round(float(hit.mean()), 3) for key, hit in agreement(found, wanted).items()}
