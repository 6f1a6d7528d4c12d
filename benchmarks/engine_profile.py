"""Where an engine call's time goes: a profile, what its products could reach, what neighbours cost.

python -m benchmarks.engine_profile
"""

import os
import statistics
import subprocess
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.workload import bare_renderer, images, prompts, recipe, seconds
from jobs.recipe import Recipe
from workers.render import BatchRenderer

CALLS = 4
#: Rows, inputs and outputs of the linear layers that cost the tiny model's UNet the most.
PRODUCTS = ((1024, 64, 512), (1024, 256, 64), (1024, 64, 64), (256, 96, 96))
REPEATS = 50
#: How often the call alone is compared with the call beside another process, which runs this.
PAIRS, BUSY = 5, "import os, zlib\nblock = os.urandom(1 << 22)\nwhile True: zlib.compress(block, 6)"


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
    print(_beside_another(one, renderer))
    return 0


def _beside_another(one: Recipe, renderer: BatchRenderer) -> str:
    """The call alone and beside a process that keeps another core busy: they may share a core."""

    def call() -> float:
        work = images(prompts(one.batch_images, 0))
        return statistics.median(
            seconds(lambda: renderer.render(one, work).images) for _ in range(REPEATS // 5)
        )

    ratios = []
    for _ in range(PAIRS):
        alone = call()
        with subprocess.Popen([sys.executable, "-c", BUSY]) as other:
            ratios.append(call() / alone)
            other.kill()
    return "beside a busy process a call takes " + ", ".join(f"{one:.2f}x" for one in ratios)


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
