"""Linear layers of an engine on a CPU, multiplied by oneDNN as its convolutions are.

PyTorch hands a float32 product to MKL, which takes its slow path on processors of other makers:
`python -m benchmarks.engine_profile` shows both rates. A picture moves by one of 255 at most.
"""

from typing import cast

import torch
from torch import Tensor, nn


def _by_onednn(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], ""))


_closed = torch.library.custom_op("fewstep::linear", _by_onednn, mutates_args=())


@_closed.register_fake
def _shape(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return values.new_empty((*values.shape[:-1], weight.shape[0]))


class OneDnnLinear(nn.Linear):
    """`nn.Linear` with the same parameters; what is not float32 on a CPU goes the usual way."""

    def forward(self, values: Tensor) -> Tensor:
        """`values` (..., inputs) to (..., outputs)."""
        if values.dtype != torch.float32 or values.device.type != "cpu":
            return super().forward(values)
        # Inductor knows the operator only with weights that it has frozen: it gets a closed box.
        product = _closed if torch.compiler.is_compiling() else _by_onednn
        return product(values, self.weight, self.bias)


def use_onednn(net: nn.Module) -> None:
    """Turn the linear layers of `net` into `OneDnnLinear`, in place; their parameters stay theirs.

    A layer of another class is left alone: an adapter's, or a quantised one.
    """
    # The operator is Inductor's own, and private: other builds may lack it.
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    for layer in net.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = OneDnnLinear
