"""How much memory a model takes, to render with and to distil: plain arithmetic."""

from jobs.architectures import Parameters
from jobs.recipe import Dtype, Frozen

BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
#: Adapters are published in half precision.
ADAPTER_BYTES = 2
#: Of each trained number: its value, its gradient and Adam's two moments, in float32.
TRAINED = 16
#: Of the averaged copy that a distillation aims at, in float32.
AVERAGED = 4
#: Of each frozen number, in half precision.
FROZEN = 2


class Footprint(Frozen):
    """Bytes of a base, an adapter and the fused engine, and of the state of distilling it.

    Without what depends on the batch: activations, and room of the libraries.
    """

    base_bytes: int
    adapter_parameters: int
    adapter_bytes: int
    #: Fusing adds nothing: `W + B A` is as large as W.
    engine_bytes: int
    #: The frozen UNet is teacher, student and target at once; only the adapter's numbers train.
    lora_training_bytes: int
    #: A trained student, its averaged target, and a frozen teacher.
    full_training_bytes: int

    @property
    def training_share(self) -> float:
        """The adapter's training state over the whole model's."""
        return self.lora_training_bytes / self.full_training_bytes


def footprint(parameters: Parameters, adapter: int, dtype: Dtype) -> Footprint:
    """The footprint of a base with an adapter of that many numbers, rendered in `dtype`."""
    base = parameters.total * BYTES[dtype]
    return Footprint(
        base_bytes=base,
        adapter_parameters=adapter,
        adapter_bytes=adapter * ADAPTER_BYTES,
        engine_bytes=base,
        lora_training_bytes=parameters.unet * FROZEN + adapter * (TRAINED + AVERAGED),
        full_training_bytes=parameters.unet * (TRAINED + AVERAGED + FROZEN),
    )
