"""How fast recipes were rendered on which device: measured by finished jobs, kept for estimates."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from jobs.queue_script import QueueScript
from jobs.redis_client import explained

#: What was not measured for so long is not known any more.
KEEP_S = 90 * 24 * 3600
#: What an older job measured counts so much against a new one of the same size.
FADE = 0.5


@dataclass(frozen=True, slots=True)
class Speed:
    """What images of one batch_key cost on one kind of device, over the jobs that measured it.

    `renderer_seconds` counts every second of every renderer that took part, idle ones too.
    """

    device: str
    images: float
    device_seconds: float
    renderer_seconds: float


class QueueSpeeds(QueueScript):
    """Speeds by batch_key and device. No correctness rests on them; losing Redis forgets them."""

    def note_speed(self, batch_key: str, measured: Speed) -> None:
        """Add what a job measured to what is known."""
        key = self.key(f"speed:{batch_key}")
        with explained():
            text = self._client.hget(key, measured.device)
            known = _speed(measured.device, text) if text else Speed(measured.device, 0, 0, 0)
            total = {
                name: FADE * value + getattr(measured, name)
                for name, value in asdict(known).items()
                if name != "device"
            }
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(key, measured.device, json.dumps(total))
            pipe.expire(key, KEEP_S)
            pipe.execute()

    def note_totals(self, totals: Mapping[str, float]) -> None:
        """Add to counters that never fall, such as `images:ok` or `stage:denoising` (seconds)."""
        pipe = self._client.pipeline(transaction=True)
        for name, value in totals.items():
            pipe.hincrbyfloat(self.key("totals"), name, value)
        with explained():
            pipe.execute()

    def totals(self) -> dict[str, float]:
        """Those counters; they begin anew where Redis was lost."""
        with explained():
            found = self._client.hgetall(self.key("totals"))
        return {name: float(value) for name, value in found.items()}

    def speeds(self, batch_key: str) -> list[Speed]:
        """What is known of a batch_key, by device; none where it was never measured."""
        with explained():
            found = self._client.hgetall(self.key(f"speed:{batch_key}"))
        return [_speed(device, text) for device, text in sorted(found.items())]


def _speed(device: str, text: str) -> Speed:
    return Speed(device, **json.loads(text))
