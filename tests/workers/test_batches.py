"""Units of several jobs fill one another's batches, in order, each image once."""

import random
from concurrent.futures import Future
from dataclasses import replace

import pytest

from jobs.job import Job, image_of
from jobs.layout import layout_of, parse_unit
from jobs.queue_values import Lease
from jobs.recipe import Recipe, RowRecipe
from jobs.rows import Row
from tests.made_shards import made_job
from workers.batches import BatchFormer, Flight, Formed
from workers.leases import Held
from workers.work import Work

ROOM = 4


def job(name: str, images: int, size: int, width: int = 64) -> Job:
    whole = made_job(images, shard_images=size)
    recipe = whole.recipe.model_copy(update={"width": width})
    return whole.model_copy(update={"id": name, "recipe": recipe})


def flight(one: Job, unit: str, attempt: int = 1, *, sound: bool = True) -> Flight:
    span = parse_unit(unit, one.shard_images, one.images)
    lease = Lease(one.id, unit, span.first, span.stop, "1", attempt, sound=sound)
    images = [image_of(one, n, Row(prompt=f"{one.id} {n}")) for n in range(span.first, span.stop)]
    held = Held(lease, 0.0, lease.first)
    return Flight(Work(held, one, layout_of(one, "x"), span, images, 0.0, 0.0))


def former(*flights: Flight) -> BatchFormer:
    made = BatchFormer(lambda recipe: ROOM)
    for one in flights:
        made.add(one)
    return made


def prompts(formed: Formed | None) -> list[str]:
    return [image.row.prompt for image in formed.images] if formed else []


def test_the_tail_of_a_unit_is_filled_by_the_next() -> None:
    one, other = job("a", 5, 5), job("b", 3, 3)
    made = former(flight(one, "0"), flight(other, "0"))
    assert made.full()
    assert prompts(made.take()) == ["a 0", "a 1", "a 2", "a 3"]
    assert made.full()
    second = made.take()
    assert prompts(second) == ["a 4", "b 0", "b 1", "b 2"]
    assert second is not None
    assert [one.work.job.id for one in second.flights] == ["a", "b"]
    assert made.take() is None


def test_what_is_not_full_may_wait() -> None:
    made = former(flight(job("a", 3, 3), "0"))
    assert not made.full()
    assert made.waiting == 3
    assert prompts(made.take()) == ["a 0", "a 1", "a 2"]
    assert not made.full()


def test_another_batch_key_stays_out_and_comes_next() -> None:
    """The oldest unit decides; one of another size is passed over, not mixed in."""
    small, wide = job("a", 4, 2), job("w", 2, 2, width=96)
    made = former(flight(small, "0"), flight(wide, "0"), flight(small, "1"))
    assert prompts(made.take()) == ["a 0", "a 1", "a 2", "a 3"]
    assert prompts(made.take()) == ["w 0", "w 1"]


@pytest.mark.parametrize(("unit", "attempt", "sound"), [("0", 2, True), ("0:0-2", 1, False)])
def test_a_unit_on_which_a_process_died_sits_alone(unit: str, attempt: int, sound: bool) -> None:
    fresh, fallen = job("a", 6, 3), job("f", 2, 2)
    died = flight(fallen, unit, attempt, sound=sound)
    made = former(flight(fresh, "0"), died, flight(fresh, "1"))
    assert prompts(made.take()) == ["a 0", "a 1", "a 2", "a 3"]
    assert made.full()
    assert prompts(made.take()) == ["f 0", "f 1"]
    assert prompts(made.take()) == ["a 4", "a 5"]


def test_a_unit_that_is_dropped_leaves_its_place_to_others() -> None:
    gone, other = flight(job("a", 6, 6), "0"), flight(job("b", 3, 3), "0")
    made = former(gone, other)
    made.take()
    made.drop(gone)
    made.drop(gone)
    assert made.flights == [other]
    assert prompts(made.take()) == ["b 0", "b 1", "b 2"]


def test_looking_ahead_takes_nothing() -> None:
    made = former(flight(job("a", 6, 6), "0"))
    assert [place.image.index for place in made.coming(5)] == [0, 1, 2, 3, 4]
    assert made.waiting == 6


@pytest.mark.parametrize("seed", range(20))
def test_every_image_comes_once_and_in_order(seed: int) -> None:
    """Many units of two sizes, some suspect, some dropped: nothing lost, doubled or mixed."""
    dice = random.Random(seed)
    rooms = {64: dice.randint(1, 7), 96: dice.randint(1, 7)}
    made = BatchFormer(lambda recipe: rooms[recipe.width])
    flights, dropped = [], set()
    for number in range(30):
        size = dice.randint(1, 9)
        one = job(f"j{number}", size, size, dice.choice([64, 96]))
        flights.append(flight(one, "0", dice.choice([1, 1, 1, 2])))
        made.add(flights[-1])
    seen: dict[str, list[int]] = {one.work.job.id: [] for one in flights}
    while formed := made.take():
        assert len(formed.places) <= rooms[formed.recipe.width]
        _check_together(formed, formed.recipe)
        for place in formed.places:
            seen[place.flight.work.job.id].append(place.image.index)
        if made.flights and dice.random() < 0.1:
            dropped.add(made.flights[-1].work.job.id)
            made.drop(made.flights[-1])
    for one in flights:
        every = list(range(len(one.work.images)))
        found = seen[one.work.job.id]
        assert found == every[: len(found)]
        assert one.work.job.id in dropped or found == every


def _check_together(formed: Formed, recipe: Recipe) -> None:
    assert {place.group.batch_key for place in formed.places} == {recipe.batch_key}
    if any(flight.suspect for flight in formed.flights):
        assert len(formed.flights) == 1


def mixed(one: Job, unit: str, widths: list[int], attempt: int = 1) -> Flight:
    """A unit whose rows have these widths in turn (64 is the job's own)."""
    made = flight(one, unit, attempt)
    own = [None if width == 64 else RowRecipe(width=width) for width in widths]
    images = [
        image.model_copy(
            update={"row": image.row.model_copy(update={"recipe": own[number % len(own)]})}
        )
        for number, image in enumerate(made.work.images)
    ]
    return Flight(replace(made.work, images=images))


def taken(former: BatchFormer) -> list[tuple[int, list[int]]]:
    """Width and images of every batch."""
    found = []
    while formed := former.take():
        found.append((formed.recipe.width, [image.index for image in formed.images]))
    return found


def test_images_of_one_setting_are_batched_together() -> None:
    made = former(mixed(job("a", 10, 10), "0", [64, 96]), mixed(job("b", 3, 3), "0", [96]))
    # Nothing more is asked for while so many wait: waiting for the batch to fill would be in vain.
    assert made.full()
    assert taken(made) == [
        (64, [0, 2, 4, 6]),
        (64, [8]),
        (96, [1, 3, 5, 7]),
        (96, [9, 0, 1, 2]),
    ]


def test_what_a_process_died_on_is_rendered_in_order() -> None:
    """So the first image that is not finished is among those that were in hand."""
    assert taken(former(mixed(job("a", 6, 6), "0", [64, 64, 96], attempt=2))) == [
        (64, [0, 1]),
        (96, [2]),
        (64, [3, 4]),
        (96, [5]),
    ]


def test_progress_is_what_is_finished_without_a_gap() -> None:
    one = mixed(job("a", 4, 4), "0", [64, 96])
    made = former(one)
    for expected in (1, 4):
        formed = made.take()
        assert formed is not None
        for place in formed.places:
            one.pictures[place.at] = Future()
        assert one.finished == expected
    assert one.rendered
