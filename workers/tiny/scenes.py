"""The procedural pictures: one anti-aliased shape on a lit, softly patterned background.

Place, size, angle, light and pattern vary without the caption saying so, so that a model must
choose among many right pictures: the mean of them is a blur, and few steps are a real problem.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.tiny.captions import PATTERNS, Attributes

Array = NDArray[np.float32]

SIDE = 64
"""Width and height of a picture in pixels."""

COLOUR_RGB = np.array(
    [
        (215, 35, 40),
        (40, 160, 60),
        (35, 80, 215),
        (250, 215, 35),
        (135, 45, 175),
        (250, 135, 25),
        (245, 245, 245),
        (22, 22, 25),
    ],
    dtype=np.float32,
)
_GROUND_RGB = np.array(
    [
        (240, 240, 240),
        (28, 28, 32),
        (140, 142, 146),
        (246, 170, 195),
        (125, 215, 228),
        (122, 78, 48),
        (230, 208, 165),
    ],
    dtype=np.float32,
)
_CENTRES = np.array([(32, 32), (20, 32), (44, 32), (32, 20), (32, 44)], dtype=np.float32)
_RADII = np.array([10.5, 17.0], dtype=np.float32)
_ROAM = np.array([4.5, 3.5], dtype=np.float32)
"""How far a small and a big object may be from its place's centre, in pixels on each axis."""


@dataclass(frozen=True)
class Scenes:
    """Rendered pictures uint8 [n, 64, 64, 3], their attributes, and what no caption says."""

    pictures: NDArray[np.uint8]
    attributes: Attributes
    pattern: NDArray[np.int64]
    boxes: NDArray[np.float32]
    """Centre x, centre y and reach of each object, in pixels: [n, 3]."""


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - np.float32(0.92)


def _box(x: Array, y: Array, width: float, height: float) -> Array:
    return np.maximum(np.abs(x) - np.float32(width), np.abs(y) - np.float32(height))


def _square(x: Array, y: Array) -> Array:
    return _box(x, y, 0.8, 0.8)


def _triangle(x: Array, y: Array) -> Array:
    slope = np.float32(np.sqrt(3) / 2)
    y = y - np.float32(0.16)
    return np.maximum(np.abs(x) * slope - y * np.float32(0.5), y) - np.float32(0.58)


def _star(x: Array, y: Array) -> Array:
    sector = np.float32(2 * np.pi / 5)
    angle = np.arctan2(x, -y)
    folded = np.abs((angle + sector / 2) % sector - sector / 2)
    radius = np.hypot(x, y)
    along, across = radius * np.cos(folded), radius * np.sin(folded)
    inner = np.array([0.42 * np.cos(np.pi / 5), 0.42 * np.sin(np.pi / 5)], dtype=np.float32)
    edge = inner - np.array([1.05, 0.0], dtype=np.float32)
    normal = np.array([edge[1], -edge[0]], dtype=np.float32) / np.hypot(*edge)
    result: Array = (along - np.float32(1.05)) * normal[0] + across * normal[1]
    return result


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - np.float32(0.74)) - np.float32(0.23)


def _cross(x: Array, y: Array) -> Array:
    return np.minimum(_box(x, y, 0.98, 0.31), _box(x, y, 0.31, 0.98))


def _heart(x: Array, y: Array) -> Array:
    x, y = np.abs(x), y + np.float32(0.12)
    root = np.float32(np.sqrt(0.5))
    half = np.float32(0.5)
    along, across = (x + y) * root, (x - y) * root
    tip = np.maximum(np.abs(along - np.float32(0.1)), np.abs(across + np.float32(0.1))) - half
    lobe = np.hypot(x - np.float32(0.42), y + np.float32(0.32)) - np.float32(0.52)
    return np.minimum(tip, lobe)


def _diamond(x: Array, y: Array) -> Array:
    return (np.abs(x) * np.float32(1.62) + np.abs(y) - np.float32(1.08)) / np.float32(1.9)


_SHAPES: tuple[Callable[[Array, Array], Array], ...] = (
    _circle,
    _square,
    _triangle,
    _star,
    _ring,
    _cross,
    _heart,
    _diamond,
)


def _column(values: NDArray[Any]) -> Array:
    return np.asarray(values, dtype=np.float32)[:, None, None]


def _ramp(rng: np.random.Generator, n: int, x: Array, y: Array, strength: float) -> Array:
    """A linear light of random direction: [n, 64, 64], about -strength..strength."""
    angle = rng.uniform(0, 2 * np.pi, n)
    force = _column(rng.uniform(0.3, 1.0, n) * strength / SIDE)
    return (_column(np.cos(angle)) * x + _column(np.sin(angle)) * y) * force


def _pattern(rng: np.random.Generator, kind: NDArray[np.int64], x: Array, y: Array) -> Array:
    """Stripes or dots of random phase, angle and period: [n, 64, 64] in -1..1, 0 where plain."""
    n = len(kind)
    angle = rng.uniform(0, np.pi, n)
    period = rng.uniform(10, 15, n) * np.where(kind == 2, 1.25, 1.0)
    turn = _column(2 * np.pi / period)
    phase = rng.uniform(0, 2 * np.pi, (2, n))
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    first = np.sin((cos * x + sin * y) * turn + _column(phase[0]))
    second = np.sin((cos * y - sin * x) * turn + _column(phase[1]))
    dots = np.clip(first * second * np.float32(1.4) + np.float32(0.1), -1, 1)
    choice = _column(kind.astype(np.float32))
    result: Array = np.where(choice == 1, first, np.where(choice == 2, dots, np.float32(0)))
    return result


def _distances(shapes: NDArray[np.int64], x: Array, y: Array, radius: NDArray[Any]) -> Array:
    """Signed distance to each object's edge in pixels, negative inside: [n, 64, 64]."""
    distance = np.empty_like(x)
    for number, shape in enumerate(_SHAPES):
        mine = shapes == number
        distance[mine] = shape(x[mine], y[mine])
    return distance * _column(radius)


def _coverage(
    rng: np.random.Generator, attributes: Attributes, hollow: bool
) -> tuple[Array, NDArray[np.float32]]:
    """How much of each pixel the object covers [n, 64, 64] in 0..1, and the objects' boxes."""
    n = len(attributes)
    roam = _ROAM[attributes.size][:, None]
    centre = _CENTRES[attributes.position] + roam * rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    radius = _RADII[attributes.size] * rng.uniform(0.9, 1.1, n).astype(np.float32)
    angle = rng.uniform(-0.45, 0.45, n)
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    axis = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
    dx = (axis[None, None, :] - _column(centre[:, 0])) / _column(radius)
    dy = (axis[None, :, None] - _column(centre[:, 1])) / _column(radius)
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    distance = _distances(attributes.shape, x, y, radius)
    cover = np.clip(np.float32(0.5) - distance, 0, 1)
    if hollow:
        line = np.where(attributes.size == 1, 3.4, 2.3)
        shrunk = _column(1 - line / radius)
        near = np.asarray(1 / shrunk, dtype=np.float32)
        inner = _distances(attributes.shape, x * near, y * near, radius - line)
        is_heart = _column(attributes.shape == _SHAPES.index(_heart)) > 0
        inner = np.where(is_heart, inner, distance + _column(line))
        cover = cover * (1 - np.clip(np.float32(0.5) - inner, 0, 1))
    reach = (radius * np.float32(1.1) + 2).astype(np.float32)
    boxes = np.concatenate([centre, reach[:, None]], axis=1)
    return cover.astype(np.float32), boxes.astype(np.float32)


def render(rng: np.random.Generator, attributes: Attributes, *, hollow: bool = False) -> Scenes:
    """Draw one picture per attribute set; ``hollow`` draws only the objects' outlines."""
    n = len(attributes)
    axis = np.arange(SIDE, dtype=np.float32) + np.float32(0.5) - SIDE / 2
    x = np.broadcast_to(axis[None, None, :], (n, SIDE, SIDE))
    y = np.broadcast_to(axis[None, :, None], (n, SIDE, SIDE))
    cover, boxes = _coverage(rng, attributes, hollow)
    pattern = rng.choice(len(PATTERNS), size=n, p=(0.2, 0.45, 0.35))
    depth = _column(rng.uniform(11, 17, n))
    ground = _GROUND_RGB[attributes.background] + rng.normal(0, 4, (n, 3)).astype(np.float32)
    paint = COLOUR_RGB[attributes.colour] + rng.normal(0, 4, (n, 3)).astype(np.float32)
    ground_light = _ramp(rng, n, x, y, 26) + _pattern(rng, pattern, x, y) * depth
    paint_light = _ramp(rng, n, x, y, 50)
    alpha = cover[..., None]
    below = ground[:, None, None, :] + ground_light[..., None]
    above = paint[:, None, None, :] + paint_light[..., None]
    mixed = np.clip(below * (1 - alpha) + above * alpha, 0, 255)
    return Scenes((mixed + 0.5).astype(np.uint8), attributes, pattern, boxes)
