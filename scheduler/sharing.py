"""How much of a device a renderer takes: the whole, until those before it have measured less."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from jobs.queue_values import RendererRecord
from workers.loading import CONTEXT_BYTES

#: Of a heartbeat, what `Sharing` reads.
SHARING_FIELDS = ("actor", "engine_key", "share", "peak", "device_memory")
#: Of what was measured, so that a batch a little larger fits too.
HEADROOM = 1.1
#: Ray counts devices in steps of so much.
_STEP = 1e-4


def fitting(peak_bytes: int, device_bytes: int, most: int) -> int:
    """How many renderers that held `peak_bytes` at most fit on a device; 1 to `most`."""
    return max(1, min(most, int(device_bytes / (peak_bytes * HEADROOM + CONTEXT_BYTES))))


@dataclass
class Sharing:
    """What renderers measured, and what each takes. `most` renderers share a device; 1: none.

    Sizes are those of the smallest device that any renderer told of.
    """

    most: int = 1
    _peaks: dict[str, int] = field(default_factory=dict)
    _device: int = 0
    _shares: dict[str, float] = field(default_factory=dict)

    def hear(self, renderers: Iterable[RendererRecord]) -> None:
        """Take in what living renderers say."""
        for one in renderers:
            info = one.info
            if info.get("share"):
                self._shares[info.get("actor", "")] = float(info["share"])
            peak, device = int(info.get("peak") or 0), int(info.get("device_memory") or 0)
            if peak and device:
                key = info.get("engine_key", "")
                self._peaks[key] = max(peak, self._peaks.get(key, 0))
                self._device = min(device, self._device or device)

    def share_of(self, engine_key: str) -> float:
        """What the next renderer of an engine takes of a device: 1 where nobody has measured."""
        peak = self._peaks.get(engine_key)
        if peak is None:
            return 1.0
        count = fitting(peak, self._device, self.most)
        return 1.0 if count == 1 else math.floor(1 / count / _STEP) * _STEP

    def given(self, actor: str) -> float:
        """What a renderer has of its device."""
        return self._shares.get(actor, 1.0)

    def note(self, actor: str, share: float) -> None:
        """Remember what a renderer was started with: it says so itself only once it lives."""
        self._shares[actor] = share

    def slots(self, actors: Iterable[str], devices: int) -> int:
        """How many renderers there may be: those there, and one for each whole device left.

        Which of those that come takes less is not known before, so each is counted whole.
        """
        there = set(actors)
        # Another thread may be hearing meanwhile.
        for gone in [name for name in list(self._shares) if name not in there]:
            self._shares.pop(gone, None)
        taken = sum(self._shares.get(name, 1.0) for name in there)
        return len(there) + math.floor(devices - taken + len(there) * _STEP)
