"""Where the time of an engine call goes: torch's profile of it, and what its products could reach.

python -m benchmarks.engine_profile
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.workload import bare_renderer, images, prompts, recipe, seconds

CALLS = 4
#: Rows, inputs and outputs of the linear layers that cost the tiny model's UNet the most.
PRODUCTS = ((1024, 64, 512), (1024, 256, 64), (1024, 64, 64), (256, 96, 96))
REPEATS = 50


def main() -> int:
    """Print both."""
    one = recipe()
    renderer = bare_renderer(one)
    renderer.render(one, images(prompts(one.batch_images, 0)))
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for number in range(CALLS):
            made = renderer.render(one, images(prompts(one.batch_images, 1 + number)))
            assert made.images
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))
    for rows, inputs, outputs in PRODUCTS:
        print(_product(rows, inputs, outputs))
    return 0


@torch.inference_mode()
def _product(rows: int, inputs: int, outputs: int) -> str:
    """A linear layer as torch calls it (MKL), and the same by oneDNN's private operator."""
    layer, values = torch.nn.Linear(inputs, outputs), torch.randn(rows, inputs)
    by_onednn = torch.ops.mkldnn._linear_pointwise
    flop = 2 * rows * inputs * outputs
    calls = {
        "nn.Linear": lambda: layer(values),
        "oneDNN": lambda: by_onednn(values, layer.weight, layer.bias, "none", [], ""),
    }
    rates = {
        name: flop / min(seconds(call) for _ in range(REPEATS)) / 1e9
        for name, call in calls.items()
    }
    told = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in rates.items())
    return f"{rows} x {inputs} -> {outputs}: {told}"


if __name__ == "__main__":
    sys.exit(main())
