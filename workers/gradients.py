"""Gradients of processes that train together, averaged in one exchange."""

import torch
from torch import distributed, nn


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the process group; nothing without a group."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    found = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in found])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for grad in found:
        grad.copy_(flat[start : start + grad.numel()].view_as(grad))
        start += grad.numel()
