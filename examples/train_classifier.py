"""Train a small classifier on a fetched dataset alone, then try it on pictures that no model made.

    python examples/train_classifier.py shapes --label shape --label colour --true-pictures 2000

The labels are columns of the dataset. A tenth of the pictures is held back to see what was
learned. The true pictures are drawn by the program that drew what the tiny model was taught by,
for the labels that it knows: shape, colour, background, position and size.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import webdataset
from torch import Tensor, nn
from torch.nn import functional

from workers.tiny.captions import VALUES, draw_attributes
from workers.tiny.scenes import render

BATCH = 64


def read_dataset(folder: Path, labels: list[str]) -> tuple[Tensor, dict[str, list[str]]]:
    """Pictures uint8 [n, 3, height, width] of all shards, and the value of each label of each."""
    tars = sorted(str(path) for path in (folder / "train").glob("*.tar"))
    if not tars:
        raise SystemExit(f"{folder}/train has no tar: fetch a job into it with `fewstep fetch`")
    pictures, texts = [], {label: [] for label in labels}
    for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"):
        picture = next(sample[kind] for kind in ("png", "jpg", "webp") if kind in sample)
        pictures.append(torch.from_numpy(picture.copy()).permute(2, 0, 1))
        for label in labels:
            if label not in sample["json"]:
                raise SystemExit(f"{sample['__key__']} has no column {label!r} to learn from")
            texts[label].append(str(sample["json"][label]))
    return torch.stack(pictures), texts


class Classifier(nn.Module):
    """Pictures [n, 3, height, width] in -1..1 to logits [n, values] of each label."""

    def __init__(self, values: dict[str, list[str]]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (3, 24, 48, 96, 128)
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.heads = nn.ModuleDict({k: nn.Linear(128 * 16, len(v)) for k, v in values.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.body(pictures)
        return {label: head(features) for label, head in self.heads.items()}


def as_input(pictures: Tensor) -> Tensor:
    """uint8 to float in -1..1."""
    return pictures.float() / 127.5 - 1


def train(pictures: Tensor, targets: dict[str, Tensor], net: Classifier, epochs: int) -> None:
    """Learn all labels at once, each picture seen `epochs` times with a little noise."""
    steps = epochs * -(-len(pictures) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(pictures)).split(BATCH):
            batch = as_input(pictures[rows])
            logits = net(batch + torch.randn_like(batch) * 0.05)
            loss = sum(functional.cross_entropy(logits[k], targets[k][rows]) for k in targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch + 1} of {epochs}: loss {total / len(pictures):.3f}", flush=True)


@torch.no_grad()
def accuracy(net: Classifier, pictures: Tensor, targets: dict[str, Tensor]) -> dict[str, float]:
    """Share of pictures of which each label is told right."""
    net.eval()
    right = dict.fromkeys(targets, 0)
    for rows in torch.arange(len(pictures)).split(256):
        logits = net(as_input(pictures[rows]))
        for label in targets:
            right[label] += int((logits[label].argmax(1) == targets[label][rows]).sum())
    return {label: hits / max(1, len(pictures)) for label, hits in right.items()}


def numbers(texts: dict[str, list[str]], values: dict[str, list[str]]) -> dict[str, Tensor]:
    """Each label's values as their numbers."""
    return {
        label: torch.tensor([values[label].index(text) for text in texts[label]]) for label in texts
    }


def true_pictures(
    values: dict[str, list[str]], count: int, seed: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures as the tiny model's teacher saw them, with the labels that are known of them."""
    rng = np.random.default_rng(seed)
    drawn = draw_attributes(rng, count, "all")
    texts = {
        label: [VALUES[label][number] for number in getattr(drawn, label)]
        for label in values
        if label in VALUES
    }
    known = np.array(
        [all(texts[label][row] in values[label] for label in texts) for row in range(count)]
    )
    pictures = torch.from_numpy(render(rng, drawn).pictures).permute(0, 3, 1, 2)[known]
    kept = {k: [t for t, fits in zip(v, known, strict=True) if fits] for k, v in texts.items()}
    return pictures, numbers(kept, values)


def report(net: Classifier, pictures: Tensor, targets: dict[str, Tensor], name: str) -> None:
    """One line: how many of what was told right."""
    shares = accuracy(net, pictures, targets)
    told = ", ".join(f"{label} {share:.1%}" for label, share in shares.items())
    print(f"{name} ({len(pictures):,} pictures): {told}", flush=True)


def split(count: int) -> Iterator[Tensor]:
    """Which rows to learn from, and which tenth to hold back."""
    order = torch.randperm(count)
    held = max(1, count // 10)
    yield order[held:]
    yield order[:held]


def main() -> None:
    """Read, train, try."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("folder", type=Path, help="what `fewstep fetch` wrote")
    asked.add_argument("--label", action="append", required=True, help="a column to learn")
    asked.add_argument("--epochs", type=int, default=8)
    asked.add_argument("--true-pictures", type=int, default=0)
    asked.add_argument("--seed", type=int, default=0)
    options = asked.parse_args()
    torch.manual_seed(options.seed)
    pictures, texts = read_dataset(options.folder, options.label)
    values = {label: sorted(set(found)) for label, found in texts.items()}
    targets = numbers(texts, values)
    learn, held = split(len(pictures))
    net = Classifier(values)
    train(pictures[learn], {k: v[learn] for k, v in targets.items()}, net, options.epochs)
    report(net, pictures[held], {k: v[held] for k, v in targets.items()}, "held back")
    if options.true_pictures:
        true, known = true_pictures(values, options.true_pictures, options.seed)
        report(net, true, known, "true pictures")


if __name__ == "__main__":
    main()
