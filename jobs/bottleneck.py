"""What held a job up, and what to change: from how long its devices worked and stood still."""

from typing import Literal

from jobs.recipe import Frozen

Stage = Literal["device", "work", "encode", "store", "filter", "queue", "unknown"]

#: From this share of busy time on, nothing but the device is worth changing.
BUSY = 0.9
#: A shorter wait for the first renderer is no matter, in seconds.
WAIT_S = 30.0

_REMEDIES: dict[Stage, str] = {
    "device": "that is as it should be; more renderers or fewer steps make it faster",
    "work": "it waited for claims and rows; larger shards, or a queue and a store that are nearer",
    "encode": "encoders were behind; more cores or FEWSTEP_THREADS, or JPEG or WebP",
    "store": "uploads were behind; a store that is nearer, or JPEG or WebP for smaller files",
    "filter": "filters took longest; fewer of them, smaller nets, or a GPU for these",
}


class Bottleneck(Frozen):
    """The stage that decided a job's speed; `device_busy` is 0 to 1, None where nobody measured."""

    stage: Stage
    device_busy: float | None
    says: str


def bottleneck_of(
    *,
    device_ms: float,
    work_ms: float,
    encode_ms: float,
    store_ms: float,
    waited_s: float,
    wall_s: float,
    filter_ms: float = 0.0,
) -> Bottleneck:
    """Which stage held a job up.

    `device_ms`: the devices' work; `work_ms`, `encode_ms`, `store_ms`: what they stood still for;
    `waited_s`: from the submission to the first claim; `wall_s`: from there to the last commit;
    `filter_ms`: scoring pictures, for which a device waits too unless it is a batch ahead.
    """
    stood: dict[Stage, float] = {"work": work_ms, "encode": encode_ms, "store": store_ms}
    stood["filter"] = filter_ms
    whole = device_ms + sum(stood.values())
    if waited_s > max(wall_s, WAIT_S):
        busy = round(device_ms / whole, 3) if whole else None
        return Bottleneck(
            stage="queue",
            device_busy=busy,
            says=f"queue: no renderer for {waited_s:.0f} s, longer than all the rendering; "
            "more renderers (FEWSTEP_MAX_RENDERERS) or a higher priority",
        )
    if not device_ms:
        return Bottleneck(
            stage="unknown", device_busy=None, says="nobody wrote down what the devices did"
        )
    share = device_ms / whole
    stage: Stage = "device" if share >= BUSY else max(stood, key=lambda one: stood[one])
    return Bottleneck(
        stage=stage,
        device_busy=round(share, 3),
        says=f"{stage}-bound: the device worked {share:.0%} of the time; {_REMEDIES[stage]}",
    )
