"""The most memory a renderer has held: the device's, or on a CPU its process's."""

import resource

import torch


def peak_bytes(device: torch.device) -> int:
    """Bytes at most.

    Of a GPU: what tensors held, by torch's own count, since the engine began to load. Of a CPU:
    resident pages of everything, libraries and earlier engines included, since the process began,
    as getrusage(2) tells it on Linux.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
