"""What the tiny model's judge reads off a dataset's pictures."""

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from workers.tiny.scorer import TinyScorer


def judge(folder: Path) -> float:
    """Share of the pictures that show all five things their prompt names."""
    scorer = TinyScorer(true_pictures=64)
    right = pictures = 0
    for path in sorted((folder / "train").glob("*.tar")):
        shown, prompts = _pictures(path)
        if prompts:
            agreement = scorer.read(np.stack(shown), prompts).agreement
            right += int(np.nansum(agreement))
            pictures += len(prompts)
    return right / max(1, pictures)


def _pictures(path: Path) -> tuple[list[np.ndarray], list[str]]:
    shown, prompts = [], []
    with tarfile.open(path) as tar:
        for member in tar:
            data = tar.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(".png"):
                shown.append(np.asarray(Image.open(BytesIO(data)).convert("RGB")))
            elif member.name.endswith(".txt"):
                prompts.append(data.decode())
    return shown, prompts
