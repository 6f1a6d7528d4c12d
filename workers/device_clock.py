"""Time and pixels between device and host, without making one wait for the other."""

import time
from typing import Any

import torch


class DeviceClock:
    """Milliseconds between laps. On a GPU laps are events on its stream, read after the last."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = [("", self._mark())]

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, stage: str) -> None:
        """What was asked of the device since the last lap belongs to `stage`."""
        self._marks.append((stage, self._mark()))

    def wait(self) -> None:
        """Until the device has passed the last lap; raises what the device failed with."""
        if self._cuda:
            self._marks[-1][1].synchronize()

    def milliseconds(self) -> dict[str, float]:
        """Stage -> milliseconds; after `wait`."""
        spent = {}
        for (_, before), (stage, after) in zip(self._marks, self._marks[1:], strict=False):
            spent[stage] = before.elapsed_time(after) if self._cuda else (after - before) * 1e3
        return spent


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the host's memory; from a GPU it is complete only after the next event."""
    if tensor.device.type != "cuda":
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


def to_device(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A host's tensor on the device, as `dtype`, without waiting for the copy."""
    if device.type != "cuda":
        return tensor.to(device, dtype)
    return tensor.pin_memory().to(device, non_blocking=True).to(dtype)
