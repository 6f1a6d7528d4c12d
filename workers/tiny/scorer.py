"""Scores for pictures of the tiny model: what its own judge reads off them."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from workers.scores import Floats, Pictures, Reading
from workers.tiny.captions import VALUES, Attributes, canonical, draw_attributes
from workers.tiny.classifier import agreement, read, shipped_judge, to_tensor
from workers.tiny.scenes import SIDE, render

TRUE_PICTURES = 4000
"""True pictures whose features stand for the truth."""

_DEPTH = 3
"""Stages of the judge whose maps the perceptual distance compares."""


class TinyScorer:
    """The judge: a small net that was trained on true pictures alone (`classifier.py`)."""

    agreement_title = "all five attributes right, by the tiny model's judge, in per cent"
    features_title = "the judge's 64 features"
    share = True
    missing: tuple[str, ...] = ()

    def __init__(self, true_pictures: int = TRUE_PICTURES) -> None:
        self._judge = shipped_judge()
        self._wanted = _every_prompt()
        rng = np.random.default_rng(2024)
        true = render(rng, draw_attributes(rng, true_pictures, "seen")).pictures
        self.truth: NDArray[np.floating] | None = read(self._judge, true)[1].numpy()

    def read(self, pictures: Pictures, prompts: Sequence[str]) -> Reading:
        """Features, whether all that the prompt names is there, and whether it is outlined.

        Only prompts in the plain form of `captions.canonical` can be judged.
        """
        found, features = read(self._judge, pictures)
        known = np.array([prompt in self._wanted for prompt in prompts])
        table = [self._wanted.get(prompt, (0,) * len(VALUES)) for prompt in prompts]
        right = agreement(found, Attributes.of(np.array(table, dtype=np.int64)))
        return Reading(
            features.numpy(),
            np.where(known, right["all"], np.nan),
            {
                "shape": np.where(known, right["shape"], np.nan),
                "colour": np.where(known, right["colour"], np.nan),
                "outlined": (found["hollow"] == 1).astype(np.float64),
            },
        )

    @torch.no_grad()
    def apart(self, one: Pictures, other: Pictures) -> Floats:
        """As LPIPS (arXiv 1801.03924) over the judge's maps, all channels weighing the same."""
        total = torch.zeros(len(one))
        pairs = zip(
            self._judge.maps(to_tensor(one), _DEPTH),
            self._judge.maps(to_tensor(other), _DEPTH),
            strict=True,
        )
        for mine, yours in pairs:
            difference = (_unit(mine) - _unit(yours)).square().sum(1).mean((1, 2))
            total += difference.cpu() / _DEPTH
        return total.numpy().astype(np.float64)


def _unit(maps: Tensor) -> Tensor:
    return functional.normalize(maps, dim=1)


def drawn_prompts(n: int, seed: int = 2024) -> list[str]:
    """`n` plain captions of pairs that training showed."""
    return canonical(draw_attributes(np.random.default_rng(seed), n, "seen"))


def _every_prompt() -> dict[str, tuple[int, ...]]:
    table = np.array(list(product(*(range(len(values)) for values in VALUES.values()))))
    texts = canonical(Attributes.of(table.astype(np.int64)))
    return {text: tuple(map(int, row)) for text, row in zip(texts, table, strict=True)}


def share_right() -> Callable[[Pictures, Sequence[str]], Floats]:
    """What scores pictures by the share of the five things of their captions that the judge sees.

    Floats [n], 0 to 1; NaN where a prompt is no plain caption (`captions.canonical`), and for
    pictures of another size.
    """
    judge, wanted = shipped_judge(), _every_prompt()

    def scores(pictures: Pictures, prompts: Sequence[str]) -> Floats:
        if pictures.shape[1:] != (SIDE, SIDE, 3):
            return np.full(len(pictures), np.nan)
        found, _ = read(judge, pictures)
        table = [wanted.get(prompt, (0,) * len(VALUES)) for prompt in prompts]
        right = agreement(found, Attributes.of(np.array(table, dtype=np.int64)))
        share = np.mean([right[name] for name in VALUES], axis=0)
        return np.where([prompt in wanted for prompt in prompts], share, np.nan)

    return scores
