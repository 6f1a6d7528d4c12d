"""Faults of the device: which end one image, and which end the process."""

from jobs.errors import FewstepError

#: After these the CUDA context is broken for good: only a new process helps.
STICKY = (
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
    "cuda error",
    "ecc error",
)


class DeviceLost(FewstepError):
    """The device no longer works for this process: release the shard and leave."""

    code = "device_lost"


def is_sticky(error: RuntimeError) -> bool:
    """Whether torch's error means that this process can use the device no more."""
    text = str(error).lower()
    return any(sign in text for sign in STICKY)
