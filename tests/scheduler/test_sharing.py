"""Devices that several renderers share: by what was measured, never by a first guess."""

import pytest

from jobs.queue_values import RendererRecord
from scheduler.sharing import Sharing, fitting

GIB = 1 << 30


def beat(actor: str, engine: str, **info: object) -> RendererRecord:
    said = {name: str(value) for name, value in info.items()}
    return RendererRecord(f"{actor}.1", 0, {"actor": actor, "engine_key": engine, **said})


@pytest.mark.parametrize(
    ("peak", "device", "most", "count"),
    [
        (10 * GIB, 24 * GIB, 4, 2),  # 12 GiB each, with what the driver holds
        (11 * GIB, 24 * GIB, 4, 1),
        (2 * GIB, 80 * GIB, 4, 4),  # as many as are allowed
        (2 * GIB, 80 * GIB, 1, 1),
        (30 * GIB, 24 * GIB, 4, 1),  # a smaller device than the one it was measured on
    ],
)
def test_how_many_fit(peak: int, device: int, most: int, count: int) -> None:
    assert fitting(peak, device, most) == count


def test_a_first_renderer_takes_the_whole_device_and_those_after_it_what_was_measured() -> None:
    sharing = Sharing(4)
    assert sharing.share_of("small") == 1
    # It lives and has rendered nothing yet.
    sharing.hear([beat("a", "small", share=1.0, device_memory=24 * GIB)])
    assert sharing.share_of("small") == 1
    sharing.hear([beat("a", "small", share=1.0, peak=6 * GIB, device_memory=24 * GIB)])
    # A third, in Ray's steps, so that three of them are no more than one.
    assert sharing.share_of("small") == pytest.approx(0.3333)
    assert 3 * sharing.share_of("small") <= 1
    assert sharing.share_of("another") == 1
    # A batch came that took more.
    sharing.hear([beat("a", "small", share=1.0, peak=10 * GIB, device_memory=24 * GIB)])
    assert sharing.share_of("small") == 0.5


def test_the_smallest_device_counts() -> None:
    sharing = Sharing(4)
    sharing.hear([beat("a", "small", peak=10 * GIB, device_memory=80 * GIB)])
    assert sharing.share_of("small") == 0.25
    sharing.hear([beat("b", "large", peak=15 * GIB, device_memory=24 * GIB)])
    assert sharing.share_of("small") == 0.5


def test_slots_are_renderers_there_and_whole_devices_left() -> None:
    sharing = Sharing(4)
    assert sharing.slots([], 3) == 3
    sharing.note("a", 1.0)
    sharing.note("b", 0.3333)
    sharing.note("c", 0.3333)
    assert sharing.slots(["a", "b", "c"], 3) == 4
    sharing.note("d", 0.3333)
    # Three thirds are one.
    assert sharing.slots(["a", "b", "c", "d"], 3) == 5
    # From before this scheduler, and silent: as if it took all.
    assert sharing.slots(["a", "x"], 3) == 3
    # Fewer devices than renderers.
    assert sharing.slots(["a", "x"], 1) == 1
