"""SD-1.5, SSD-1B and SDXL on one GPU: each part, the whole renderer, and plain diffusers.

    python -m benchmarks.gpu [--models sd15,ssd-1b,sdxl] [--small] [--out FILE]

Random weights of the real architectures (benchmarks/nets.toml) and a random rank-64 LCM-LoRA,
fused: how fast they are does not depend on the values. Needs torch, diffusers (with transformers),
peft, and of small packages pydantic, pydantic-settings, isal and simplejpeg; no Ray, Redis, S3 or
network. One call does everything within ten minutes on an H100 or H200; what no time is left for is
named, not made up. `--small` runs the whole path with reduced nets, on a CPU too; its figures mean
nothing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import torch

from benchmarks.gpu_parts import Parts, matrix_tflops
from benchmarks.gpu_whole import (
    STEPS,
    device_seconds,
    engine_of,
    equal_bits,
    plain_seconds,
    recipe_of,
    some_images,
    warm,
    whole_seconds,
)
from benchmarks.machine import describe, sentence
from benchmarks.nets import Architecture, architectures, build
from workers.engine import pick_device
from workers.render import BatchRenderer

#: Images/s wanted of the whole renderer on an H200, and of it over the device alone.
WANTED = {"sd15": 60.0, "ssd-1b": 16.0, "sdxl": 11.0}
WANTED_SHARE = 0.98
ROUNDS = 3
MICRO_BATCHES = (1, 2, 4, 8)

Figures = dict[str, Any]


class Run:
    """One run on one device: how long it may take, and what was found."""

    def __init__(self, small: bool, seconds: float) -> None:
        self.small = small
        self.device = pick_device(1)
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._end = time.monotonic() + seconds
        self.tflops = matrix_tflops(self.device, self.dtype, 256 if small else 8192)

    def may(self, seconds: float) -> bool:
        """Whether that much time is left."""
        return time.monotonic() + seconds < self._end

    def images(self, batch: int, batch_s: float) -> int:
        """Images of a measurement of about six seconds, in whole batches, at least four."""
        return batch * max(4, min(64, round((0.1 if self.small else 6.0) / batch_s)))


def measure(run: Run, architecture: Architecture, folder: Path) -> Figures:
    """Everything about one architecture."""
    pipeline = build(architecture, run.device, run.dtype)
    recipe = recipe_of(architecture, run.dtype)
    plain = _plain(run, pipeline, recipe, folder)
    renderer = BatchRenderer(engine_of(pipeline, recipe, run.device, run.dtype))
    figures: Figures = {"batch": recipe.batch_images, "pixels": recipe.width}
    figures |= _parts(run, Parts(architecture, pipeline, run.device, run.dtype))
    figures |= _rates(run, renderer, recipe, folder)
    figures["equal_bits"] = equal_bits(renderer, recipe)
    figures["tflop_per_image"] = None if run.small else round(architecture.tflop(STEPS), 3)
    if not run.small:
        share = figures["whole_images_s"] * architecture.tflop(STEPS) / run.tflops
        figures["share_of_limit"] = share
    figures |= {"plain_images_s": plain, **_compiled(run, pipeline, renderer, recipe, folder)}
    return figures


def _plain(run: Run, pipeline: Any, recipe: Any, folder: Path) -> float:
    """Images/s of plain diffusers as it comes: contiguous, eager."""
    batch = recipe.batch_images
    once = plain_seconds(pipeline, recipe, some_images(batch), folder)
    count = batch * max(2, min(8, round((0.1 if run.small else 8.0) / once)))
    return count / plain_seconds(pipeline, recipe, some_images(count), folder)


def _parts(run: Run, parts: Parts) -> Figures:
    half, whole = run.dtype, torch.float32
    decode = {
        f"{str(dtype).removeprefix('torch.')} x{micro}": parts.decode_ms(micro, dtype)
        for dtype, micros in {half: MICRO_BATCHES, whole: (1, 4)}.items()
        for micro in micros
        if micro <= parts.architecture.batch
    }
    return {
        "text_ms": parts.text_ms(),
        "unet_ms": parts.unet_ms(),
        "decode_ms_per_image": decode,
        "transfer_ms": parts.transfer_ms(),
        "encode_ms_per_image": {form: parts.encode_ms(form) for form in ("png", "jpeg", "webp")},
    }


def _rates(run: Run, renderer: BatchRenderer, recipe: Any, folder: Path) -> Figures:
    """Whole renderer and device alone in turn, images/s, medians of `ROUNDS`."""
    count = run.images(recipe.batch_images, warm(renderer, recipe, run.device))
    images = some_images(count, first=10_000)
    alone, whole = [], []
    for _ in range(ROUNDS):
        alone.append(count / device_seconds(renderer, recipe, images))
        whole.append(count / whole_seconds(renderer, recipe, images, folder))
    shares = [one / other for one, other in zip(whole, alone, strict=True)]
    return {
        "images": count,
        "device_images_s": median(alone),
        "whole_images_s": median(whole),
        "whole_over_device": median(shares),
        "png_bytes": sum(path.stat().st_size for path in folder.glob("*.tar")) // count,
    }


def _compiled(
    run: Run, pipeline: Any, renderer: BatchRenderer, recipe: Any, folder: Path
) -> Figures:
    """Plain diffusers and ours with UNet and decoder compiled, where time is left for it."""
    if not run.may(150):
        return {"skipped": "compiled: no time was left"}
    pipeline.unet = torch.compile(pipeline.unet, fullgraph=True)
    pipeline.vae.decode = torch.compile(pipeline.vae.decode, fullgraph=True)
    started = time.perf_counter()
    plain = _plain(run, pipeline, recipe, folder)
    figures: Figures = {"plain_compiled_images_s": plain}
    figures["compile_s"] = time.perf_counter() - started
    if run.may(60):
        rates = _rates(run, renderer, recipe, folder)
        figures |= {
            "compiled_device_images_s": rates["device_images_s"],
            "compiled_whole_images_s": rates["whole_images_s"],
        }
    return figures


def table(run: Run, found: dict[str, Figures]) -> str:
    """The figures, a column for each model."""
    rows: list[tuple[str, Callable[[str, Figures], str]]] = [
        ("images in a batch, edge", lambda _, one: f"{one['batch']}, {one['pixels']}"),
        ("text encoding, ms a batch", lambda _, one: f"{one['text_ms']:.2f}"),
        ("UNet call, ms a batch", lambda _, one: f"{one['unet_ms']:.2f}"),
        *(
            (f"decode, ms an image, {kind}", lambda _, one, k=kind: _of(one, k))
            for kind in next(iter(found.values()))["decode_ms_per_image"]
        ),
        ("device to host, ms a batch", lambda _, one: f"{one['transfer_ms']:.2f}"),
        (
            "PNG / JPEG / WebP, ms an image on a thread",
            lambda _, one: " / ".join(f"{ms:.1f}" for ms in one["encode_ms_per_image"].values()),
        ),
        ("device alone, images/s", lambda _, one: f"{one['device_images_s']:.2f}"),
        ("**whole renderer, PNG in a folder, images/s**", _whole),
        ("whole over device alone", lambda _, one: f"{one['whole_over_device']:.3f}"),
        ("share of the limit", lambda _, one: _share(one)),
        ("plain diffusers, images/s", lambda _, one: f"{one['plain_images_s']:.2f}"),
        ("plain diffusers compiled", lambda _, one: _maybe(one, "plain_compiled_images_s")),
        ("whole renderer compiled", lambda _, one: _maybe(one, "compiled_whole_images_s")),
        ("equal bits in every place", lambda _, one: _bits(one)),
    ]
    head = "| | " + " | ".join(found) + " |\n|---|" + "---|" * len(found)
    body = [
        f"| {title} | " + " | ".join(cell(name, one) for name, one in found.items()) + " |"
        for title, cell in rows
    ]
    return "\n".join([head, *body])


def _of(one: Figures, kind: str) -> str:
    spent = one["decode_ms_per_image"].get(kind)
    return "" if spent is None else f"{spent:.2f}"


def _whole(name: str, one: Figures) -> str:
    return f"**{one['whole_images_s']:.2f}** (wanted on an H200: {WANTED[name]:g})"


def _share(one: Figures) -> str:
    return f"{one['share_of_limit']:.0%}" if "share_of_limit" in one else "not measured"


def _maybe(one: Figures, key: str) -> str:
    return f"{one[key]:.2f}" if key in one else "no time was left"


def _bits(one: Figures) -> str:
    wrong = [place for place, same in one["equal_bits"].items() if not same]
    return f"no: {', '.join(wrong)}" if wrong else "yes"


def main(words: list[str]) -> int:
    """Measure, print the table after each model, write the JSON."""
    known = architectures()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--models", default=",".join(known))
    parser.add_argument("--small", action="store_true", help="reduced nets: does it run?")
    parser.add_argument("--seconds", type=float, default=540, help="no part begins after it")
    parser.add_argument("--out", type=Path, help="JSON file of all figures")
    wanted = parser.parse_args(words)
    warnings.filterwarnings("ignore")
    run = Run(wanted.small, wanted.seconds)
    chosen = architectures(small=wanted.small)
    machine = describe()
    found: dict[str, Figures] = {}
    for name in wanted.models.split(","):
        with tempfile.TemporaryDirectory(prefix="fewstep-gpu-") as folder:
            found[name] = measure(run, chosen[name], Path(folder))
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
        if wanted.out:
            report = {"machine": machine, "matrix_tflops": run.tflops, "models": found}
            wanted.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    dtype = str(run.dtype).removeprefix("torch.")
    print(f"{sentence(machine)}; random weights (speed does not depend on the values), {dtype}")
    print(f"A matrix product reaches {run.tflops:.3g} TFLOP/s in {dtype}: the limit below.\n")
    print(table(run, found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
