"""What a listing of the store means for the queue: each image is booked once, or made again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InvalidInput
from jobs.queue_values import DoneUnit, QueueJob
from jobs.restoring import restore_plan

IMAGES, SIZE = 25, 10
JOB = QueueJob(
    job_id="job",
    tenant="ann",
    engine_key="engine",
    state="pause",
    outcome="",
    priority=4,
    images=IMAGES,
    shard_images=SIZE,
    shards=3,
    cursor=0,
    done_images=0,
    failed_images=0,
    dead_images=0,
    units_in_flight=0,
    images_in_flight=0,
    device_ms=0,
    unit_cost=1.0,
    spec_sha256="s",
    restoring=True,
    submitted_ms=0,
    first_claim_ms=None,
    last_progress_ms=None,
    finished_ms=None,
)


def span(unit: str) -> range:
    shard, _, part = unit.partition(":")
    if part:
        first, stop = part.split("-")
        return range(int(first), int(stop))
    return range(int(shard) * SIZE, min((int(shard) + 1) * SIZE, IMAGES))


def part_of(numbers: tuple[int, int, int]) -> str:
    shard, one, other = numbers
    low, end = shard * SIZE, min((shard + 1) * SIZE, IMAGES)
    first, stop = sorted((low + one % (end - low), low + other % (end - low)))
    return f"{shard}:{first}-{stop + 1}"


UNITS = st.one_of(
    st.sampled_from(["0", "1", "2"]),
    st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9)).map(part_of),
)


def single(image: int) -> str:
    return f"{image // SIZE}:{image}-{image + 1}"


@settings(deadline=None)
@given(
    st.lists(UNITS, unique=True, max_size=8),
    st.lists(st.integers(0, IMAGES - 1).map(single), max_size=4),
)
def test_each_image_of_a_touched_shard_is_accounted_for_once(
    done: list[str], dead: list[str]
) -> None:
    plan = restore_plan(JOB, map(DoneUnit, done), dict.fromkeys(dead, "why"))
    booked = sorted(image for _, unit, _ in plan for image in span(unit))
    touched = {image // SIZE for unit in [*done, *dead] for image in span(unit)}
    assert booked == [image for image in range(IMAGES) if image // SIZE in touched]
    assert all(unit in done for kind, unit, _ in plan if kind == "done")


def test_a_whole_shard_beats_its_parts() -> None:
    found = [DoneUnit("1:10-15"), DoneUnit("1", failed=2), DoneUnit("2:20-22", failed=1)]
    assert restore_plan(JOB, found, {}) == [
        ("done", "1", 2),
        ("done", "2:20-22", 1),
        ("gap", "2:22-25", ""),
    ]


@pytest.mark.parametrize(
    "wrong", [DoneUnit("3"), DoneUnit("1:5-15"), DoneUnit("x"), DoneUnit("2", failed=6)]
)
def test_units_of_another_job_are_refused(wrong: DoneUnit) -> None:
    with pytest.raises(InvalidInput):
        restore_plan(JOB, [wrong], {})
