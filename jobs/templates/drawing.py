"""Sampled rows: every choice drawn by its weights, from the seed and the row's number alone."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence

from jobs.templates.phrases import Choice, Path


class Draws:
    """Whole numbers below a bound, one after another, the same for the same name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0

    def below(self, bound: int) -> int:
        """The next one, 0 up to `bound`: the high bits of a 64-bit hash, even to 1 in 2^40."""
        text = f"fewstep-template:{self._name}:{self._number}"
        self._number += 1
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") * bound >> 64


def drawn_path(choices: Sequence[Choice], draws: Draws) -> Path:
    """A path drawn by the weights: outer choices first, each before those inside it."""
    found: list[tuple[int, Path]] = []
    for choice in choices:
        taken = bisect_right(choice.heights, draws.below(choice.heights[-1]))
        found.append((taken, drawn_path(choice.options[taken].choices, draws)))
    return tuple(found)
