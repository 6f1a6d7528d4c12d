"""How good a row's pictures are: what scorers read off them, gathered batch by batch."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workers.metrics import frechet_distance

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float64]

#: Below so many pictures a Frechet distance is biased too much to stand beside published ones.
FID_LEAST = 10_000
#: Pictures scored at once.
BATCH = 64


@dataclass(frozen=True)
class Reading:
    """What a scorer reads off n pictures; None where it cannot."""

    #: Float [n, d], in which Frechet distances are taken.
    features: NDArray[np.floating] | None = None
    #: How well each shows its prompt, float [n]; NaN where the prompt cannot be judged.
    agreement: Floats | None = None
    #: More of the kind, each a share: name -> zeros, ones and NaN, float [n].
    details: dict[str, Floats] = field(default_factory=dict)


class Scorer(Protocol):
    """Judges pictures of one size, uint8 [n, h, w, 3]."""

    #: What stands over the columns: of the agreement, and of the features' origin.
    agreement_title: str
    features_title: str
    #: Whether the agreement is a share, shown in per cent; else it is a score.
    share: bool
    #: Features [m, d] of true pictures; None: the reference's are taken.
    truth: NDArray[np.floating] | None
    #: What it cannot do, and what would mend that.
    missing: tuple[str, ...]

    def read(self, pictures: Pictures, prompts: Sequence[str]) -> Reading:
        """What the pictures show."""

    def apart(self, one: Pictures, other: Pictures) -> Floats | None:
        """Perceptual distance of each picture to its namesake, float [n]; None: it cannot."""


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error, of n values that are not NaN."""

    mean: float
    error: float
    n: int

    @classmethod
    def of(cls, values: Floats, *, share: bool = False) -> "Mean | None":
        """None where there is no value.

        The error of a share (of zeros and ones) is softened (Wald, one hit and one miss added), so
        that it is not 0 where all agree.
        """
        known = values[~np.isnan(values)]
        if not len(known):
            return None
        error = float(known.std()) / math.sqrt(len(known))
        if share:
            softened = (float(known.sum()) + 1) / (len(known) + 2)
            error = math.sqrt(softened * (1 - softened) / len(known))
        return cls(float(known.mean()), error, len(known))


@dataclass(frozen=True)
class Scores:
    """A row's figures; None where there is no way to tell."""

    images: int
    frechet: float | None
    perceptual: Mean | None
    agreement: Mean | None
    details: dict[str, Mean]


@dataclass(frozen=True)
class Sample:
    """One picture, uint8 [h, w, 3], its prompt, and the reference's picture of the same seed."""

    prompt: str
    pixels: Pictures
    reference: Pictures | None


def score(scorer: Scorer, samples: Iterable[Sample], reference: "Features") -> Scores:
    """All figures of one row; the distance is taken to the truth, or else to `reference`."""
    gathered = _Gathered()
    for some in _batches(samples):
        gathered.add(scorer, some)
    features = gathered.features
    frechet = None
    goal = scorer.truth if scorer.truth is not None else reference
    if features is not None and goal is not None and min(len(features), len(goal)) > 1:
        frechet = frechet_distance(features, goal)
    return Scores(
        images=gathered.images,
        frechet=frechet,
        perceptual=_mean(gathered.apart),
        agreement=_mean(gathered.agreement, share=scorer.share),
        details={
            name: found
            for name, parts in gathered.details.items()
            if (found := _mean(parts, share=True)) is not None
        },
    )


#: Features of a row's pictures, or None where a scorer has none.
Features = NDArray[np.floating] | None


def features_of(scorer: Scorer, samples: Iterator[Sample]) -> Features:
    """The features [n, d] of a row's pictures."""
    gathered = _Gathered()
    for some in _batches(samples):
        gathered.add(scorer, some)
    return gathered.features


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    left = iter(samples)
    while some := list(islice(left, BATCH)):
        yield some


class _Gathered:
    def __init__(self) -> None:
        self.images = 0
        self.apart: list[Floats] = []
        self.agreement: list[Floats] = []
        self.details: dict[str, list[Floats]] = {}
        self._features: list[NDArray[np.floating]] = []

    def add(self, scorer: Scorer, some: Sequence[Sample]) -> None:
        """Read a batch."""
        pictures = np.stack([one.pixels for one in some])
        found = scorer.read(pictures, [one.prompt for one in some])
        self.images += len(some)
        if found.features is not None:
            self._features.append(found.features)
        if found.agreement is not None:
            self.agreement.append(found.agreement)
        for name, values in found.details.items():
            self.details.setdefault(name, []).append(values)
        pairs = [(one.pixels, one.reference) for one in some if one.reference is not None]
        if pairs:
            ours, theirs = (np.stack(side) for side in zip(*pairs, strict=True))
            apart = scorer.apart(ours, theirs)
            if apart is not None:
                self.apart.append(apart)

    @property
    def features(self) -> Features:
        """All features [n, d]."""
        return np.concatenate(self._features) if self._features else None


def _mean(parts: list[Floats], *, share: bool = False) -> Mean | None:
    return Mean.of(np.concatenate(parts), share=share) if parts else None
