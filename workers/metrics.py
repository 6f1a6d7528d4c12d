"""How good pictures are: the Frechet distance of feature sets, shares and their standard errors."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _root(matrix: Floats) -> Floats:
    """Symmetric square root of a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    result: Floats = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return result


def frechet_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Frechet distance of two feature sets [n, d] and [m, d], each taken as a Gaussian.

    |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)), arXiv 1706.08500. Biased upwards for small
    sets: compare only distances of equal n.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"feature sets of shapes {one.shape} and {other.shape} do not compare")
    if min(len(one), len(other)) < 2:
        raise ValueError("a Frechet distance needs at least two rows on each side")
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    shift = first.mean(0) - second.mean(0)
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    root = _root(a)
    cross = np.linalg.eigvalsh(root @ b @ root)
    trace = np.trace(a) + np.trace(b) - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    return float(max(shift @ shift + trace, 0.0))


def share(hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of true values, and its standard error (Wald, with one success and failure added)."""
    n = len(hits)
    if n == 0:
        raise ValueError("no values, so no share of them")
    softened = (float(hits.sum()) + 1) / (n + 2)
    return float(hits.mean()), math.sqrt(softened * (1 - softened) / n)
