"""Memory freed by one batch is kept for the next, instead of going back to the kernel."""

import ctypes
import sys

#: From malloc.h of the GNU C library; mallopt(3) tells what they do.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Blocks up to this size come from the heap: the most that the library accepts on 64 bits.
HEAP_BLOCK_BYTES = 32 << 20
#: So much may lie free at the heap's end before it shrinks.
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Tell the C library so, for this whole process; False where it is not the GNU one.

    Nets on a CPU allocate the same tensors at each step. By default each comes from the kernel as
    fresh pages, which are cleared first: some 4,000 page faults in a call of the tiny model's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
    )
