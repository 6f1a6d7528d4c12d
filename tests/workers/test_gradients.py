"""Processes that train together: every one ends with the mean of all gradients."""

from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn

from workers.gradients import average_gradients


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    one, other, frozen = (nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    one.grad = torch.full((2, 2), float(rank))
    other.grad = torch.arange(4.0).view(2, 2) * (rank + 1)
    average_gradients([one, frozen, other])
    torch.save((one.grad, other.grad, frozen.grad), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_gradients_of_two_processes_are_averaged(tmp_path: Path) -> None:
    multiprocessing.spawn(_process, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        one, other, frozen = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(one, torch.full((2, 2), 0.5))
        assert torch.equal(other, torch.arange(4.0).view(2, 2) * 1.5)
        assert frozen is None


def test_one_process_keeps_its_own() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    average_gradients([parameter])
    assert torch.equal(parameter.grad, torch.ones(2))
