"""The generator: the same pictures from the same seed, and captions that are true of them."""

import numpy as np
import pytest

from workers.tiny.captions import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    POSITIONS,
    SHAPES,
    VALUES,
    Attributes,
    canonical,
    captions,
    draw_attributes,
    is_held_out,
    mistake,
)
from workers.tiny.scenes import SIDE, render


def _draw(seed: int, n: int = 64) -> tuple[Attributes, np.ndarray]:
    rng = np.random.default_rng(seed)
    attributes = draw_attributes(rng, n)
    return attributes, render(rng, attributes).pictures


def test_a_seed_decides_the_pictures() -> None:
    first, pictures = _draw(3)
    second, again = _draw(3)
    assert np.array_equal(first.table(), second.table())
    assert np.array_equal(pictures, again)
    assert not np.array_equal(pictures, _draw(4)[1])
    assert pictures.shape == (64, SIDE, SIDE, 3)
    assert pictures.dtype == np.uint8


def test_the_same_attributes_give_different_pictures() -> None:
    attributes = Attributes.of(np.repeat(_draw(0, 1)[0].table(), 2, axis=0))
    one, other = render(np.random.default_rng(0), attributes).pictures.astype(int)
    assert np.abs(one - other).mean() > 3


@pytest.mark.parametrize("pairs", ["seen", "held_out"])
def test_held_out_pairs_stay_apart(pairs: str) -> None:
    drawn = draw_attributes(np.random.default_rng(1), 500, pairs)
    held = is_held_out(drawn.shape, drawn.colour)
    assert held.all() if pairs == "held_out" else not held.any()
    assert len({shape for shape, _ in HELD_OUT}) == len(SHAPES)


def test_no_object_has_the_colour_of_its_background() -> None:
    drawn = draw_attributes(np.random.default_rng(2), 2000, "all")
    names = zip(drawn.colour, drawn.background, strict=True)
    assert all(COLOURS[colour] != BACKGROUNDS[ground] for colour, ground in names)


def test_captions_say_what_they_claim_to_say() -> None:
    rng = np.random.default_rng(5)
    attributes = draw_attributes(rng, 400)
    texts, named = captions(rng, attributes)
    for text, row, says in zip(texts, attributes.table(), named, strict=True):
        assert SHAPES[row[0]] in text
        assert COLOURS[row[1]] in text or not says[1]
        assert (f"{BACKGROUNDS[row[2]]} background" in text) == bool(says[2])
        if not says[3]:
            assert not any(place in text for place in POSITIONS[1:])
    assert 0.55 < named.all(axis=1).mean() < 0.9


def test_canonical_captions_name_all_five() -> None:
    attributes = draw_attributes(np.random.default_rng(6), 50)
    for text, row in zip(canonical(attributes), attributes.table(), strict=True):
        assert all(values[k] in text for values, k in zip(VALUES.values(), row, strict=True))


def test_mistakes_change_one_attribute_in_their_share() -> None:
    attributes = draw_attributes(np.random.default_rng(7), 4000)
    told = mistake(np.random.default_rng(8), attributes, 0.25)
    changed = (told.table() != attributes.table()).sum(axis=1)
    assert set(changed.tolist()) == {0, 1}
    assert 0.22 < changed.mean() < 0.28


def test_the_object_is_where_the_caption_puts_it() -> None:
    row = [SHAPES.index("circle"), COLOURS.index("red"), BACKGROUNDS.index("white"), 0, 1]
    table = np.repeat(np.array([row]), len(POSITIONS), axis=0)
    table[:, 3] = np.arange(len(POSITIONS))
    scenes = render(np.random.default_rng(9), Attributes.of(table))
    red = (scenes.pictures[..., 0].astype(int) - scenes.pictures[..., 1]) > 90
    centres = np.array([np.argwhere(mask).mean(0)[::-1] for mask in red])
    assert np.abs(centres + 0.5 - scenes.boxes[:, :2]).max() < 1
    assert centres[POSITIONS.index("left"), 0] < 24 < 40 < centres[POSITIONS.index("right"), 0]
    assert centres[POSITIONS.index("top"), 1] < 24 < 40 < centres[POSITIONS.index("bottom"), 1]


def test_hollow_objects_show_the_ground_inside() -> None:
    row = [SHAPES.index("circle"), COLOURS.index("red"), BACKGROUNDS.index("white"), 0, 1]
    attributes = Attributes.of(np.array([row]))
    full = render(np.random.default_rng(1), attributes).pictures[0, 32, 32]
    hollow = render(np.random.default_rng(1), attributes, hollow=True).pictures[0, 32, 32]
    assert full[1] < 100
    assert hollow[1] > 180
