"""The judge: a small convolutional net that reads attributes off a picture.

It is trained on ground truth alone. It also reads what no caption says (pattern, its direction,
outlines), so that its feature space notices when a model loses them.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from workers.tiny import JUDGE_DIR, cache_dir, made
from workers.tiny.captions import PATTERNS, VALUES, Attributes, draw_attributes
from workers.tiny.checkpoints import Run, device, placed, save_state
from workers.tiny.scenes import render
from workers.tiny.shipping import swap_folder

FEATURES = 64
JUDGE_FILE = "judge.safetensors"
_BATCH = 64


class Judge(nn.Module):
    """Pictures [n, 3, 64, 64] in -1..1 to features [n, 64] and logits per attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 40, 64, 96)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 5 if before == 3 else 3, 2, 2 if before == 3 else 1),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Conv2d(after, after, 3, 1, 1, groups=1 if after > 24 else 4),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for before, after in pairwise(widths)
        )
        self.features = nn.Linear(widths[-1] * 16, FEATURES)
        sizes = {name: len(values) for name, values in VALUES.items()}
        sizes |= {"pattern": len(PATTERNS), "hollow": 2}
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, n) for name, n in sizes.items()})

    def maps(self, pictures: Tensor, depth: int) -> list[Tensor]:
        """Feature maps of the first ``depth`` stages, for a perceptual loss."""
        found = []
        for stage in list(self.stages)[:depth]:
            pictures = stage(pictures)
            found.append(pictures)
        return found

    def embed(self, pictures: Tensor) -> Tensor:
        """Features [n, 64], in which Frechet distances are taken."""
        for stage in self.stages:
            pictures = stage(pictures)
        result: Tensor = self.features(pictures.flatten(1))
        return result

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = functional.relu(self.embed(pictures))
        return {name: head(features) for name, head in self.heads.items()}


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, h, w, 3] to float [n, 3, h, w] in -1..1, where training happens."""
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return (values / 127.5 - 1).contiguous(memory_format=torch.channels_last).to(device())


def _batch(rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Fresh pictures, an eighth of them hollow, with noise so that small flaws do not confuse."""
    hollow = _BATCH // 8
    parts = [
        render(rng, draw_attributes(rng, n, "all"), hollow=flag)
        for n, flag in ((_BATCH - hollow, False), (hollow, True))
    ]
    pictures = to_tensor(np.concatenate([part.pictures for part in parts]))
    pictures = (
        pictures + torch.randn_like(pictures) * torch.rand(_BATCH, 1, 1, 1).to(pictures) * 0.08
    )
    table = np.concatenate([part.attributes.table() for part in parts])
    targets = {name: torch.from_numpy(table[:, k].copy()) for k, name in enumerate(VALUES)}
    targets["pattern"] = torch.from_numpy(np.concatenate([part.pattern for part in parts]))
    targets["hollow"] = (torch.arange(_BATCH) >= _BATCH - hollow).long()
    return pictures, {name: target.to(device()) for name, target in targets.items()}


def judge_path(seed: int) -> Path:
    """Where the judge of this seed lies: 0 judges, 1 teaches the autoencoder what shapes are."""
    return cache_dir() / f"judge{seed}.weights.pt"


def train_judge(seed: int, minutes: float = 2.0) -> Judge:
    """Train one judge on an endless stream of ground truth."""
    torch.manual_seed(seed)
    judge: Judge = placed(Judge())
    optimiser = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=1e-3)
    run = Run(f"judge{seed}", {"judge": judge}, optimiser, minutes, decay=0.99)
    rng = np.random.default_rng([seed, 77, run.step])
    while not run.done:
        pictures, targets = _batch(rng)
        logits = judge(pictures)
        losses = [functional.cross_entropy(logits[name], targets[name]) for name in targets]
        loss = torch.stack(losses).sum()
        run.update(loss)
        if run.step % 100 == 0:
            right = (logits["shape"].argmax(1) == targets["shape"]).float().mean()
            run.log(loss=round(loss.item(), 4), shape=round(right.item(), 3))
    run.averaged("judge")
    save_state(judge.state_dict(), judge_path(seed))
    return judge


def ship_judge() -> Path:
    """Write the judge that judges in half precision, where `shipped_judge` finds it; the file."""
    state = torch.load(judge_path(0), map_location="cpu", weights_only=True)
    half = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in state.items()
    }
    with swap_folder(made("judge")) as folder:
        save_file(half, folder / JUDGE_FILE)
    return made("judge") / JUDGE_FILE


def shipped_judge() -> Judge:
    """The judge of the package, in float32, ready to read."""
    judge = Judge()
    judge.load_state_dict(load_file(JUDGE_DIR / JUDGE_FILE))
    ready: Judge = placed(judge.eval().requires_grad_(False))
    return ready


def load_judge(seed: int) -> Judge:
    """The trained judge, ready to read."""
    judge = Judge()
    judge.load_state_dict(torch.load(judge_path(seed), map_location="cpu", weights_only=True))
    ready: Judge = placed(judge.eval().requires_grad_(False))
    return ready


@torch.no_grad()
def read(judge: Judge, pictures: NDArray[np.uint8]) -> tuple[dict[str, NDArray[np.int64]], Tensor]:
    """What the judge reads off uint8 pictures: values per attribute [n], and features [n, 64]."""
    found: dict[str, list[Tensor]] = {name: [] for name in judge.heads}
    features = []
    for start in range(0, len(pictures), 128):
        batch = to_tensor(pictures[start : start + 128])
        embedded = judge.embed(batch)
        features.append(embedded.cpu())
        for name, head in judge.heads.items():
            found[name].append(head(functional.relu(embedded)).argmax(1).cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}, torch.cat(features)


def agreement(
    found: dict[str, NDArray[np.int64]], wanted: Attributes
) -> dict[str, NDArray[np.bool_]]:
    """Which pictures show what was asked for: bool [n] per attribute and for "all"."""
    right = {name: found[name] == getattr(wanted, name) for name in VALUES}
    right["all"] = np.logical_and.reduce(list(right.values()))
    return right
