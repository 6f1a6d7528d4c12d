"""Linear layers by oneDNN: the same parameters and nearly the same bits, eager and compiled."""

import copy

import pytest
import torch
from torch import nn

from workers.linear import OneDnnLinear, use_onednn


class Adapted(nn.Linear):
    """A layer of somebody else's class."""


@pytest.fixture(name="nets", scope="module")
def two_nets() -> tuple[nn.Module, nn.Module]:
    """A net as torch makes it, and the same with its linear layers replaced."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 32, bias=False), Adapted(32, 32)
    )
    ours = copy.deepcopy(plain)
    use_onednn(ours)
    return plain.requires_grad_(False), ours.requires_grad_(False)


def test_only_plain_linear_layers_change_and_their_parameters_do_not(
    nets: tuple[nn.Module, nn.Module],
) -> None:
    plain, ours = nets
    kinds = [type(layer) for layer in ours.children()]
    assert kinds == [OneDnnLinear, nn.SiLU, OneDnnLinear, Adapted]
    theirs = plain.state_dict()
    assert list(theirs) == list(ours.state_dict())
    assert all(torch.equal(found, theirs[name]) for name, found in ours.state_dict().items())


@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64), (0, 64)])
def test_the_product_is_the_same_within_rounding(
    nets: tuple[nn.Module, nn.Module], shape: tuple[int, ...]
) -> None:
    plain, ours = nets
    values = torch.randn(shape)
    torch.testing.assert_close(ours(values), plain(values), rtol=1e-5, atol=1e-6)


def test_a_row_does_not_depend_on_its_neighbours(nets: tuple[nn.Module, nn.Module]) -> None:
    """A batch always has the same size, so its rows may stand anywhere in it."""
    values = torch.randn(16, 24, 64)
    turned = nets[1](values.flip(0)).flip(0)
    assert torch.equal(turned, nets[1](values))


def test_another_precision_goes_the_usual_way(nets: tuple[nn.Module, nn.Module]) -> None:
    plain, ours = (copy.deepcopy(net).to(torch.bfloat16) for net in nets)
    values = torch.randn(4, 64, dtype=torch.bfloat16)
    assert torch.equal(ours(values), plain(values))


def test_its_closed_box_tells_a_compiler_the_shape_it_gives(
    nets: tuple[nn.Module, nn.Module],
) -> None:
    """`aot_eager` traces the whole net with shapes alone, as Inductor does, and needs no g++."""
    values = torch.randn(2, 5, 64)
    whole = torch.compile(nets[1], fullgraph=True, backend="aot_eager")
    assert torch.equal(whole(values), nets[1](values))
