"""Near-duplicates: which of many pictures resemble an earlier one, by their perceptual hashes."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

#: Bits of a hash.
BITS = 64
#: Pairs that are compared at once: bounds the memory.
_PAIRS = 1 << 22

Hashes = NDArray[np.uint64]
Indexes = NDArray[np.int64]


def near_duplicates(hashes: Sequence[int] | Hashes, within: int) -> tuple[Indexes, Indexes]:
    """For each of n hashes of 64 bits: the first earlier one within reach, and how far it is.

    Within reach is what differs in `within` bits at most. Both int64 [n]; -1 where there is none.
    In `within` + 1 bands of bits two that are close agree in one band at least, so only those that
    share a band are compared: O(n) memory, and O(n log n) time unless very many share one.
    """
    every = np.asarray(hashes, dtype=np.uint64)
    unique, first, back = np.unique(every, return_index=True, return_inverse=True)
    order = np.argsort(first)
    # The distinct hashes in the order of their first picture: what is earlier has a lower number.
    ordered, firsts = unique[order], first[order]
    nearest = np.full(len(ordered), len(ordered), dtype=np.int64)
    for low, high in _bands(within + 1):
        mask = np.uint64(((1 << (high - low)) - 1) << low)
        _compare(ordered, ordered & mask, within, nearest)
    found = np.full(len(every), -1, dtype=np.int64)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    place = rank[back.reshape(-1)]
    near = nearest[place]
    close = near < len(ordered)
    found[close] = firsts[near[close]]
    # Of pictures with one hash, the later ones resemble the first, or what that one resembles.
    repeated = (firsts[place] < np.arange(len(every))) & ~close
    found[repeated] = firsts[place[repeated]]
    apart = np.full(len(every), -1, dtype=np.int64)
    some = found >= 0
    apart[some] = np.bitwise_count(every[some] ^ every[found[some]])
    return found, apart


def _bands(count: int) -> Iterator[tuple[int, int]]:
    """Bits 0 to 64 as `count` runs of nearly the same length."""
    edges = [BITS * number // count for number in range(count + 1)]
    yield from pairwise(edges)


def _compare(hashes: Hashes, bands: Hashes, within: int, nearest: Indexes) -> None:
    """Lower `nearest` to the first earlier hash within reach that has the same band."""
    by_band = np.argsort(bands, kind="stable")
    starts = np.flatnonzero(np.diff(bands[by_band], prepend=~bands[by_band[:1]]))
    sizes = np.diff(starts, append=len(by_band))
    for begin, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        group, step = by_band[begin : begin + size], max(1, _PAIRS // size)
        for start in range(0, size, step):
            some, others = group[start : start + step], group[: start + step]
            apart = np.bitwise_count(hashes[some][:, None] ^ hashes[others][None, :])
            close = (apart <= within) & (others[None, :] < some[:, None])
            first = np.where(close.any(1), others[close.argmax(1)], len(hashes))
            np.minimum.at(nearest, some, first)
