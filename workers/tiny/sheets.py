"""The pictures of the model card: contact sheets of the truth, the teacher and the accelerator."""

from pathlib import Path

import numpy as np

from workers.tiny.captions import COLOURS, SHAPES, Attributes, canonical, draw_attributes
from workers.tiny.evaluate import GUIDANCE, Way, load_pipeline, sample
from workers.tiny.look import contact_sheet
from workers.tiny.scenes import render

_LCM = (("lcm", 1.0),)


def _questions(count: int = 48) -> Attributes:
    """Every shape and colour equally often, the rest at random."""
    rng = np.random.default_rng(17)
    table = draw_attributes(rng, 40 * count, "all").table()
    chosen = []
    for k in range(count):
        shape, colour = k % len(SHAPES), (k // len(SHAPES) + k) % len(COLOURS)
        rows = table[(table[:, 0] == shape) & (table[:, 1] == colour)]
        chosen.append(rows[k % len(rows)])
    return Attributes.of(np.stack(chosen))


def write_sheets(folder: Path) -> None:
    """Write ``tiny-*.png``: eight shapes across, the same prompts and seeds in every sheet."""
    wanted = _questions()
    prompts = canonical(wanted)
    truth = render(np.random.default_rng(5), wanted).pictures
    contact_sheet(truth, 8, folder / "tiny-truth.png")
    ways = {
        "teacher": Way("teacher", "dpm++", 25, GUIDANCE),
        "lcm": Way("lcm", "lcm", 4, 1.0, _LCM),
    }
    for name, way in ways.items():
        pictures = sample(load_pipeline(way.adapters), way, prompts, seed=100)
        contact_sheet(pictures, 8, folder / f"tiny-{name}.png")
    few = prompts[:8]
    rows = [
        sample(load_pipeline(way.adapters), way, few, seed=100)
        for way in (
            *(Way("", "dpm++", n, GUIDANCE) for n in (1, 2, 4, 25)),
            Way("", "lcm", 4),
            *(Way("", "lcm", n, 1.0, _LCM) for n in (1, 2, 4, 8)),
        )
    ]
    contact_sheet(np.concatenate(rows), 8, folder / "tiny-steps.png")
    styled = (*_LCM, ("outline", 0.8))
    outlined = sample(load_pipeline(styled), Way("", "lcm", 4, 1.0, styled), prompts[:16], seed=100)
    contact_sheet(outlined, 8, folder / "tiny-outline.png")
