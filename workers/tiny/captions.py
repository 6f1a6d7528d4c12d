"""What a picture of the tiny model may show, and the captions that say it."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
BACKGROUNDS = ("white", "black", "grey", "pink", "cyan", "brown", "beige")
POSITIONS = ("centre", "left", "right", "top", "bottom")
SIZES = ("small", "big")
PATTERNS = ("plain", "stripes", "dots")

VALUES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "background": BACKGROUNDS,
    "position": POSITIONS,
    "size": SIZES,
}
"""The attributes a caption can name, each with its values in the order of their numbers."""

HELD_OUT = tuple((shape, (3 * shape + 1) % len(COLOURS)) for shape in range(len(SHAPES)))
"""One (shape, colour) pair per shape that training never shows; only evaluation does."""

_PLACES = {
    "centre": ("in the centre", "in the middle", "at the centre"),
    "left": ("on the left", "at the left", "on the left side"),
    "right": ("on the right", "at the right", "on the right side"),
    "top": ("at the top", "on top", "at the upper edge"),
    "bottom": ("at the bottom", "on the bottom", "at the lower edge"),
}
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
_TEMPLATES = (
    "a {size} {colour} {shape} {place} {ground}",
    "{size} {colour} {shape} {place} {ground}",
    "a picture of a {size} {colour} {shape} {place} {ground}",
    "a drawing of one {size} {colour} {shape}, {place}, {ground}",
    "{ground}, a {size} {colour} {shape} {place}",
    "{place} there is a {size} {colour} {shape} {ground}",
    "the {shape} is {colour} and {size}, {place}, {ground}",
    "{shape}, {colour}, {size}, {place}, {ground}",
    "an image with a {colour} {shape}, {size}, {place} {ground}",
)
_GROUNDS = ("on a {} background", "over a {} background", "{} background", "with {} background")
_JUNK = ("photo", "best quality", "4k", "nice", "art", "simple", "poster", "render", "sharp")
_CANONICAL = "a {size} {colour} {shape} {place} on a {background} background"


@dataclass(frozen=True)
class Attributes:
    """Attribute numbers of ``n`` pictures: one int64 array of shape [n] per attribute."""

    shape: NDArray[np.int64]
    colour: NDArray[np.int64]
    background: NDArray[np.int64]
    position: NDArray[np.int64]
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shape)

    def table(self) -> NDArray[np.int64]:
        """All attributes as int64 [n, 5], columns in the order of `VALUES`."""
        return np.stack([getattr(self, name) for name in VALUES], axis=1)

    @staticmethod
    def of(table: NDArray[np.int64]) -> "Attributes":
        """The inverse of `table`."""
        return Attributes(*(table[:, k] for k in range(len(VALUES))))


def is_held_out(shape: NDArray[np.int64], colour: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which (shape, colour) pairs [n] are held out from training."""
    partner = np.array([colour_of for _, colour_of in HELD_OUT])
    return np.asarray(partner[shape] == colour, dtype=np.bool_)


def _clashes(colour: NDArray[np.int64], background: NDArray[np.int64]) -> NDArray[np.bool_]:
    names, grounds = np.array(COLOURS), np.array(BACKGROUNDS)
    return np.asarray(names[colour] == grounds[background], dtype=np.bool_)


def draw_attributes(rng: np.random.Generator, n: int, pairs: str = "seen") -> Attributes:
    """``n`` random attribute sets; ``pairs`` is "seen", "held_out" or "all" shape-colour pairs."""
    if pairs not in ("seen", "held_out", "all"):
        raise ValueError(f"pairs must be seen, held_out or all, not {pairs!r}")
    shape = rng.integers(len(SHAPES), size=n)
    colour = rng.integers(len(COLOURS), size=n)
    background = rng.integers(len(BACKGROUNDS), size=n)
    while True:
        held = is_held_out(shape, colour)
        wrong = _clashes(colour, background)
        if pairs == "seen":
            wrong |= held
        if pairs == "held_out":
            wrong |= ~held
        bad = int(wrong.sum())
        if bad == 0:
            break
        shape[wrong] = rng.integers(len(SHAPES), size=bad)
        colour[wrong] = rng.integers(len(COLOURS), size=bad)
        background[wrong] = rng.integers(len(BACKGROUNDS), size=bad)
    position = rng.integers(len(POSITIONS), size=n)
    size = rng.integers(len(SIZES), size=n)
    return Attributes(shape, colour, background, position, size)


def mistake(rng: np.random.Generator, attributes: Attributes, share: float) -> Attributes:
    """The same attributes with one of them wrong in about ``share`` of the rows, as web captions.

    A model trained on such captions spreads without guidance, as real ones do.
    """
    table = attributes.table()
    rows = np.flatnonzero(rng.random(len(table)) < share)
    columns = rng.integers(len(VALUES), size=len(rows))
    counts = np.array([len(values) for values in VALUES.values()])[columns]
    shift = 1 + np.floor(rng.random(len(rows)) * (counts - 1)).astype(np.int64)
    table[rows, columns] = (table[rows, columns] + shift) % counts
    return Attributes.of(table)


def canonical(attributes: Attributes) -> list[str]:
    """One plain caption a row that names all five attributes; what evaluation prompts with."""
    return [
        _CANONICAL.format(
            size=SIZES[size],
            colour=COLOURS[colour],
            shape=SHAPES[shape],
            place=_PLACES[POSITIONS[position]][0],
            background=BACKGROUNDS[background],
        )
        for shape, colour, background, position, size in attributes.table()
    ]


def captions(
    rng: np.random.Generator, attributes: Attributes, omit: float = 0.3
) -> tuple[list[str], NDArray[np.bool_]]:
    """Varied captions, and which attributes each one names: bool [n, 5] in the order of `VALUES`.

    In a share ``omit`` of them some attributes are left out; 8 % carry a junk word.
    """
    n = len(attributes)
    partial = rng.random(n) < omit
    named = ~(partial[:, None] & (rng.random((n, len(VALUES))) < 0.4))
    named[:, 0] = True
    rows = attributes.table()
    return [_sentence(rng, rows[k], named[k]) for k in range(n)], named


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _sentence(rng: np.random.Generator, row: NDArray[np.int64], named: NDArray[np.bool_]) -> str:
    shape, colour, background, position, size = (int(value) for value in row)
    words = {
        "shape": SHAPES[shape],
        "colour": COLOURS[colour] if named[1] else "",
        "ground": _pick(rng, _GROUNDS).format(BACKGROUNDS[background]) if named[2] else "",
        "place": _pick(rng, _PLACES[POSITIONS[position]]) if named[3] else "",
        "size": _pick(rng, _SIZE_WORDS[SIZES[size]]) if named[4] else "",
    }
    text = _CANONICAL if rng.random() < 0.3 and named.all() else _pick(rng, _TEMPLATES)
    text = text.format(background=BACKGROUNDS[background], **words)
    if rng.random() < 0.08:
        text = f"{text}, {_pick(rng, _JUNK)}"
    return re.sub(r"[\s,]*,[\s,]*", ", ", " ".join(text.split())).strip(", ")


def vocabulary() -> list[str]:
    """Every word a caption may hold, sorted."""
    sources: list[str] = [*_TEMPLATES, *_GROUNDS, *_JUNK, _CANONICAL, "of an outline hollow"]
    for group in (*VALUES.values(), *_PLACES.values(), *_SIZE_WORDS.values()):
        sources.extend(group)
    text = " ".join(sources)
    for name in ("size", "colour", "shape", "place", "ground", "background"):
        text = text.replace("{" + name + "}", " ")
    words = text.replace("{}", " ").replace(",", " ").split()
    return sorted(set(words) | {"background"})
