"""What a job's report says held it up."""

import pytest

from jobs.bottleneck import BUSY, WAIT_S, bottleneck_of


def found(**given: float) -> tuple[str, float | None, str]:
    names = ("device_ms", "work_ms", "encode_ms", "store_ms", "filter_ms")
    names += ("waited_s", "wall_s")
    one = bottleneck_of(**{name: given.get(name, 0.0) for name in names})
    return one.stage, one.device_busy, one.says


@pytest.mark.parametrize(
    ("given", "stage", "busy", "says"),
    [
        ({"device_ms": 1000}, "device", 1.0, "as it should be"),
        ({"device_ms": 900, "work_ms": 100}, "device", BUSY, "90 %"),
        ({"device_ms": 899, "work_ms": 101}, "work", 0.899, "larger shards"),
        ({"device_ms": 500, "encode_ms": 400, "store_ms": 100}, "encode", 0.5, "WebP"),
        ({"device_ms": 500, "encode_ms": 100, "store_ms": 400}, "store", 0.5, "nearer"),
        ({"device_ms": 500, "encode_ms": 100, "filter_ms": 400}, "filter", 0.5, "smaller nets"),
        ({"device_ms": 1, "work_ms": 3, "encode_ms": 2, "store_ms": 2}, "work", 0.125, "12 %"),
        ({"device_ms": 1000, "waited_s": 100, "wall_s": 99}, "queue", 1.0, "no renderer for 100 s"),
        ({"device_ms": 1000, "waited_s": 100, "wall_s": 100}, "device", 1.0, "worked"),
        ({"device_ms": 1000, "waited_s": WAIT_S, "wall_s": 2}, "device", 1.0, "worked"),
        ({"waited_s": 31}, "queue", None, "FEWSTEP_MAX_RENDERERS"),
        ({}, "unknown", None, "nobody wrote down"),
    ],
)
def test_the_bottleneck(given: dict[str, float], stage: str, busy: float | None, says: str) -> None:
    name, share, text = found(**given)
    assert (name, share) == (stage, busy)
    # A percent sign stands with or without a space before it.
    assert says.replace(" %", "%") in text
