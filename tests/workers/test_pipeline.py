"""Units of a job with filters on their way through a renderer: what is said and what is kept."""

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jobs.filters import JobFilter
from jobs.job import Image
from jobs.recipe import Recipe
from jobs.records import LoadTimes
from jobs.settings import Settings
from tests.workers.test_batches import flight, job
from workers.leases import Held
from workers.pipeline import Pipeline
from workers.rendered import Rendered
from workers.sieve import Sieve
from workers.work import RenderedShard, Work


class OneColour:
    """A renderer whose pictures are all alike; it notes what is asked of it, and what is said."""

    encoders, ahead, load_ms, load_times, memory_bytes = 1, 0, 0.0, LoadTimes(), 0

    def __init__(self, held: Held) -> None:
        self._held = held
        self.seeds: list[list[int]] = []
        self.progress: list[int | None] = []

    def room(self, recipe: Recipe) -> int:
        return 4

    def draw_ahead(self, recipe: Recipe, images: Sequence[Image]) -> None:
        """Nothing is drawn."""

    def start(self, recipe: Recipe, images: Sequence[Image]) -> int:
        self.seeds.append([one.seed for one in images])
        self.progress.append(self._held.progress)
        return len(images)

    def finish(self, started: Any) -> list[Rendered]:
        return [Rendered(np.full((8, 8, 3), 9, np.uint8), "", 0, n) for n in range(started)]


class Keeper:
    """No lease is renewed here."""

    def begin(self, *begun: Held) -> None:
        for one in begun:
            one.progress = one.lease.first

    def moved(self) -> None:
        """It hangs never."""


def a_unit() -> Work:
    """Four images of a job that wants no two alike, within two tries."""
    rule = JobFilter(name="near_duplicate", kind="duplicate", policy="retry", at_least=4.0)
    one = job("a", 4, 4).model_copy(update={"filters": (rule,), "max_tries": 2})
    return flight(one, "0").work


def rendered(work: Work) -> tuple[OneColour, list["weakref.ref[Any]"]]:
    """What was asked of the device until the unit was delivered, and its pictures."""
    pictures: list[weakref.ref[Any]] = []

    def deliver(_: Work, shard: RenderedShard) -> None:
        pictures.extend(weakref.ref(one.result()) for one in shard.pictures)

    renderer = OneColour(work.held)
    pipeline = Pipeline(
        renderer,
        Keeper(),  # type: ignore[arg-type]
        Sieve(Settings(), lambda: None),
        None,  # type: ignore[arg-type]
        deliver,
        lambda error: None,
        lambda: None,
    )
    pipeline.add(work)
    while pipeline.in_hand:
        assert pipeline.step(hurry=True)
    pipeline.close()
    return renderer, pictures


@contextmanager
def no_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_unit_is_in_hand_as_long_as_an_image_of_it_is_made_again() -> None:
    """A death is laid to whoever has an image in hand; who is behind its last one is innocent."""
    work = a_unit()
    renderer, _ = rendered(work)
    first, again = renderer.seeds
    assert len(first) == 4
    assert len(again) == 3
    assert not {*first} & {*again}
    assert renderer.progress == [0, 1]
    assert work.held.progress == 4


def test_pictures_of_a_unit_that_was_delivered_are_free_at_once() -> None:
    """Not when the interpreter looks for circles: by then it may be a thousand pictures each."""
    with no_collection():
        _, pictures = rendered(a_unit())
        assert len(pictures) == 4
        assert [one() for one in pictures] == [None] * 4
