"""What renderers add to the counters of `/metrics` with each unit: images, stages, stalls."""

from collections import Counter
from collections.abc import Iterable, Mapping

from jobs.queue_values import DoneAnswer
from jobs.records import ImageRecord, ShardTimes

#: Answers after which the unit's images are in the dataset by our doing.
COUNTED = frozenset({"ok", "late"})
STAGES = ("text", "denoise", "decode", "transfer", "encode")
STALLS = ("work", "encode", "store")


def rendered(
    records: Iterable[ImageRecord], times: ShardTimes, upload_ms: float, answer: DoneAnswer
) -> Mapping[str, float]:
    """The tallies of a unit that was rendered and committed; times in seconds.

    Work whose unit somebody else delivered is counted by its answer alone.
    """
    found: Counter[str] = Counter({f"unit:{answer}": 1})
    if answer not in COUNTED:
        return found
    stages = dict.fromkeys(STAGES, 0.0)
    for one in records:
        found[f"image:{one.error_kind or one.status}"] += 1
        for name in STAGES:
            stages[name] += float(getattr(one.times, f"{name}_ms"))
    stages["upload"] = upload_ms
    if times.filter_ms:
        stages["filter"] = times.filter_ms
    stalls = {name: float(getattr(times, f"{name}_stall_ms")) for name in STALLS}
    return {
        **found,
        **{f"work:{name}": passed / 1e3 for name, passed in stages.items()},
        **{f"stall:{name}": passed / 1e3 for name, passed in stalls.items()},
    }


def adopted() -> Mapping[str, float]:
    """The tallies of a unit that lay in the store already."""
    return {"unit:adopted": 1}
