"""Scores for pictures of real models, by the field's libraries where they and their weights are.

All is optional: `pip install 'fewstep[metrics]'`, and weights on this machine. What is not there
is left out of the table, and the table says what would bring it in.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from jobs.errors import InvalidInput
from workers.library_filters import clip_agreement
from workers.scores import BATCH, Floats, Pictures, Reading

#: Where weights lie that no package brings.
INCEPTION, CLIP = "FEWSTEP_METRICS_INCEPTION", "FEWSTEP_METRICS_CLIP"
_INSTALL = "pip install 'fewstep[metrics]'"
_KINDS = {".png", ".jpg", ".jpeg", ".webp"}


class LibraryScorer:
    """torch-fidelity's Inception features, LPIPS, and CLIP's agreement with the prompt."""

    agreement_title = "CLIP score (cosine of picture and prompt, times 100, at least 0)"
    features_title = "the 2048 features of torch-fidelity's InceptionV3"
    share = False

    def __init__(self, truth: Path | None) -> None:
        """`truth`: a folder of true pictures. Raises InvalidInput where it holds none."""
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        paths = _pictures_in(truth) if truth is not None else []
        missing: list[str] = []
        self._inception = _tried(self._load_inception, "Frechet distance", missing)
        self._lpips = _tried(self._load_lpips, "perceptual distance", missing)
        self._clip = _tried(self._load_clip, "agreement with the prompt", missing)
        self.missing = tuple(missing)
        self.truth = self._features_of(paths) if paths and self._inception else None

    def read(self, pictures: Pictures, prompts: Sequence[str]) -> Reading:
        """Inception features, and CLIP's agreement."""
        features = self._inception(pictures) if self._inception else None
        agreement = self._clip(pictures, prompts) if self._clip else None
        return Reading(features, agreement)

    def apart(self, one: Pictures, other: Pictures) -> Floats | None:
        """LPIPS with AlexNet's features (arXiv 1801.03924)."""
        return self._lpips(one, other) if self._lpips else None

    def _features_of(self, paths: Sequence[Path]) -> NDArray[np.floating]:
        assert self._inception is not None
        return np.concatenate([self._inception(some) for some in _loaded(paths)])

    def _load_inception(self) -> Callable[[Pictures], NDArray[np.floating]]:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = _weights(INCEPTION)
        net = FeatureExtractorInceptionV3(
            "inception", ["2048"], feature_extractor_weights_path=path
        )
        net = net.to(self._device).eval()

        @torch.no_grad()
        def features(pictures: Pictures) -> NDArray[np.floating]:
            found: torch.Tensor = net(self._tensor(pictures))[0]
            return found.cpu().numpy()

        return features

    def _load_lpips(self) -> Callable[[Pictures, Pictures], Floats]:
        from lpips import LPIPS

        net = LPIPS(net="alex", verbose=False).to(self._device).eval()

        @torch.no_grad()
        def apart(one: Pictures, other: Pictures) -> Floats:
            pair = (self._tensor(side).float() / 127.5 - 1 for side in (one, other))
            found: torch.Tensor = net(*pair)
            return found.flatten().cpu().numpy().astype(np.float64)

        return apart

    def _load_clip(self) -> Callable[[Pictures, Sequence[str]], Floats]:
        return clip_agreement(Path(_weights(CLIP)), self._device)

    def _tensor(self, pictures: Pictures) -> torch.Tensor:
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().to(self._device)


def _tried(load: Callable[[], Any], what: str, missing: list[str]) -> Any:
    """What `load` gives, or None; then `missing` says why, and what would help."""
    try:
        return load()
    except ImportError as error:
        missing.append(f"{what}: {error.name or error} is not installed; {_INSTALL}")
    # RuntimeError: a torchvision that was built for another torch.
    except (OSError, ValueError, RuntimeError) as error:
        missing.append(f"{what}: {str(error).splitlines()[0][:200]}")
    return None


def _weights(variable: str) -> str:
    """The path in this variable; raises ValueError saying what it should hold."""
    path = os.environ.get(variable, "")
    if not path or not Path(path).exists():
        said = f"{path!r} is not there" if path else "it is not set"
        raise ValueError(f"{variable} must name its weights on this machine; {said}")
    return path


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _KINDS)
    if len(found) < 2:
        raise InvalidInput(
            "no true pictures are there",
            where=str(folder),
            remedy="give a folder with at least two .png, .jpg or .webp files",
        )
    return found


def _loaded(paths: Sequence[Path]) -> Iterator[Pictures]:
    """Batches of pictures, cropped to squares and scaled to the size of the first."""
    left, side = iter(paths), 0
    while some := list(islice(left, BATCH)):
        batch = []
        for path in some:
            try:
                with Image.open(path) as picture:
                    square = _square(picture.convert("RGB"))
            except (OSError, UnidentifiedImageError) as error:
                raise InvalidInput(
                    f"this picture cannot be read: {error}"[:300],
                    where=str(path),
                    remedy="remove it, or give another folder with --truth",
                ) from error
            side = side or square.width
            batch.append(np.asarray(square.resize((side, side), Image.Resampling.LANCZOS)))
        yield np.stack(batch)


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))
