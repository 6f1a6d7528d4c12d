"""The tiny model's judge on an adapter: which share of its pictures show what was asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np

from workers.tiny.captions import canonical, draw_attributes
from workers.tiny.classifier import agreement, judge_path, load_judge, read


def judged(sample: Callable[[list[str]], list[Any]], pictures: int = 64) -> dict[str, float]:
    """Share of pictures that are right in each attribute and in all; nothing without a judge.

    `sample` makes uint8 pictures [64, 64, 3] of prompts. A judge is made by
    `python -m workers.tiny judge`, in FEWSTEP_TINY_CACHE.
    """
    if not judge_path(0).exists():
        return {}
    wanted = draw_attributes(np.random.default_rng(2024), pictures)
    made = sample(canonical(wanted))
    blank = np.zeros((64, 64, 3), np.uint8)
    shown = np.stack([blank if one is None else np.asarray(one) for one in made])
    found, _ = read(load_judge(0), shown)
    return {name: round(float(hits.mean()), 4) for name, hits in agreement(found, wanted).items()}
