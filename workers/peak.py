"""The most memory a renderer has held: the device's, or on a CPU its process's."""

import resource

import torch


def peak_bytes(device: torch.device) -> int:
    """Bytes at most since the process began, which holds one engine.

    Of a GPU: what tensors held, by torch's own count. Of a CPU: resident pages of everything,
    libraries included, as getrusage(2) tells it on Linux.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
