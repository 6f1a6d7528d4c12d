"""Faults of the device and its node: which end one image, and which end the process."""

import errno
import shutil
import tempfile

from jobs.errors import FewstepError, NoCapacity

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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a smaller batch may go where this one did not: torch's word for it, GPU or CPU."""
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


#: What a node has run out of, whatever the unit: disk, quota, open files.
EXHAUSTED = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
#: With less room for temporary files than this a node claims nothing: a shard goes through a file.
ROOM_BYTES = 64 << 20


def exhausted(error: Exception) -> NoCapacity | None:
    """Our error where the node has run out of something; None where the error is another one."""
    if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
        return None
    return NoCapacity(
        f"this node has run out of something: {error.strerror}",
        where=f"temporary files in {tempfile.gettempdir()}",
        remedy="make room there, or raise the limit of open files",
    )


def no_room() -> str:
    """What is wrong with this node's room for temporary files; "" where there is enough."""
    folder = "the folder for temporary files"
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder} cannot be used: {error.strerror or error}"
    if free >= ROOM_BYTES:
        return ""
    return f"{folder} has {free >> 20} MiB left for temporary files, {ROOM_BYTES >> 20} are needed"
