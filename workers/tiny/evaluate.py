"""Measuring the tiny model: agreement with the prompt and Frechet distance, by way of sampling."""

import hashlib
import json
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
)
from numpy.typing import NDArray

from workers.metrics import frechet_distance, share
from workers.tiny import cache_dir, made
from workers.tiny.captions import Attributes, canonical, draw_attributes
from workers.tiny.checkpoints import device, placed, rank, wait, world
from workers.tiny.classifier import agreement, judge_path, load_judge, read
from workers.tiny.latents import decode_latents, encode_latents
from workers.tiny.scenes import render

GUIDANCE = 3.0
"""The teacher's guidance scale in the table."""

_SCHEDULERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "dpm++": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
}
_BATCH = 50


@dataclass(frozen=True)
class Way:
    """One row of the table: how pictures are made."""

    name: str
    sampler: str
    steps: int
    guidance: float = 1.0
    adapters: tuple[tuple[str, float], ...] = ()


_LCM = (("lcm", 1.0),)


def ways(guidance: float = GUIDANCE) -> list[Way]:
    """All rows that sample."""
    found = [
        Way("teacher, guidance, DDIM 50", "ddim", 50, guidance),
        Way("teacher, guidance, DPM-Solver++ 25", "dpm++", 25, guidance),
    ]
    found += [Way(f"teacher, guidance, DPM-Solver++ {n}", "dpm++", n, guidance) for n in (4, 2, 1)]
    found += [Way(f"teacher, no guidance, DPM-Solver++ {n}", "dpm++", n) for n in (4, 2, 1)]
    found += [Way(f"control: LCM sampler, no LoRA, {n}", "lcm", n) for n in (4, 2, 1)]
    return found + [Way(f"**LCM-LoRA, {n}**", "lcm", n, 1.0, _LCM) for n in (1, 2, 4, 8)]


def style_ways() -> list[Way]:
    """The rows of the style's table."""
    return [
        Way("no style, DPM-Solver++ 25", "dpm++", 25, GUIDANCE),
        Way("style 1.0, DPM-Solver++ 25", "dpm++", 25, GUIDANCE, (("outline", 1.0),)),
        Way("accelerator 1.0, 4 steps", "lcm", 4, 1.0, _LCM),
        Way("style 0.8 + accelerator 1.0, 4 steps", "lcm", 4, 1.0, (*_LCM, ("outline", 0.8))),
        Way("style 1.0 + accelerator 1.0, 4 steps", "lcm", 4, 1.0, (*_LCM, ("outline", 1.0))),
    ]


def load_pipeline(adapters: tuple[tuple[str, float], ...] = ()) -> StableDiffusionPipeline:
    """The shipped base in fp32 with these adapters fused."""
    pipeline = StableDiffusionPipeline.from_pretrained(made("model"), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for name, _ in adapters:
        pipeline.load_lora_weights(made(f"{name}_lora"), adapter_name=name)
    if adapters:
        names = [name for name, _ in adapters]
        pipeline.set_adapters(names, [weight for _, weight in adapters])
        pipeline.fuse_lora(components=["unet"], adapter_names=names)
        pipeline.unload_lora_weights()
    pipeline.to(device())
    placed(pipeline.unet)
    placed(pipeline.vae)
    return pipeline


def sample(
    pipeline: StableDiffusionPipeline, way: Way, prompts: list[str], seed: int = 0
) -> NDArray[np.uint8]:
    """Pictures uint8 [n, 64, 64, 3] of the prompts, each with its own seed."""
    scheduler = _SCHEDULERS[way.sampler]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    made = []
    for start in range(0, len(prompts), _BATCH):
        part = prompts[start : start + _BATCH]
        generators = [torch.Generator().manual_seed(seed + start + k) for k in range(len(part))]
        found = pipeline(
            part,
            num_inference_steps=way.steps,
            guidance_scale=way.guidance,
            generator=generators,
            output_type="np",
        )
        made.append((found.images * 255).round().astype(np.uint8))
    return np.concatenate(made)


@dataclass(frozen=True)
class Exam:
    """The questions: prompts of seen and of held-out pairs, and the truth's features."""

    seen: Attributes
    held_out: Attributes
    truth: NDArray[np.float32]

    @staticmethod
    def draw(seen: int, held_out: int, reference: int = 4000) -> "Exam":
        """Fixed questions and a reference set of ``reference`` true pictures."""
        rng = np.random.default_rng(2024)
        first = draw_attributes(rng, seen, "seen")
        second = draw_attributes(rng, held_out, "held_out")
        true = render(rng, draw_attributes(rng, reference, "seen")).pictures
        _, features = read(load_judge(0), true)
        return Exam(first, second, features.numpy())

    @property
    def prompts(self) -> list[str]:
        """Seen pairs first, then held-out ones."""
        return canonical(self.seen) + canonical(self.held_out)

    def mark(self, name: str, pictures: NDArray[np.uint8], milliseconds: float) -> dict[str, Any]:
        """One row of the table from the pictures of all prompts."""
        judge, n = load_judge(0), len(self.seen)
        found, features = read(judge, pictures)
        right = agreement({key: value[:n] for key, value in found.items()}, self.seen)
        row: dict[str, Any] = {"name": name, "n": n, "n_held_out": len(pictures) - n}
        row |= {key: share(hits) for key, hits in right.items()}
        if len(self.held_out):
            other = agreement({key: value[n:] for key, value in found.items()}, self.held_out)
            row["held_out"] = share(other["all"])
        row["distance"] = frechet_distance(features[:n].numpy(), self.truth)
        row["hollow"] = share(found["hollow"] == 1)
        row["ms"] = milliseconds
        return row


def _true_rows(exam: Exam, pipeline: StableDiffusionPipeline) -> list[dict[str, Any]]:
    table = np.concatenate([exam.seen.table(), exam.held_out.table()])
    true = render(np.random.default_rng(7), Attributes.of(table)).pictures
    means, _ = encode_latents(pipeline.vae, true)
    again = decode_latents(pipeline.vae, means)
    return [
        exam.mark("ground truth", true, 0.0),
        exam.mark("autoencoder's reconstruction", again, 0.0),
    ]


def evaluate(seen: int = 400, held_out: int = 150, style: int = 200) -> dict[str, Any]:
    """Measure everything, shared out over the processes that were started together.

    A row that was measured before, of the same weights and questions, is read from the cache.
    """
    exam = Exam.draw(seen, held_out)
    truths = _true_rows(exam, load_pipeline()) if rank() == 0 else []
    rows = _measure(exam, ways(), f"{seen}-{held_out}")
    styled = _measure(Exam.draw(style, 0), style_ways(), f"{style}-0")
    result = {"machine": machine(), "rows": [*truths, *rows], "style": styled}
    if rank() == 0:
        (cache_dir() / "table.json").write_text(json.dumps(result, indent=1))
    return result


def machine() -> str:
    """The processor and the libraries, in words."""
    name = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        found = re.search(r"model name\s*: (.*)", cpus.read_text())
        name = " ".join(found.group(1).split()) if found else name
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    return f"{name}, torch {torch.__version__}, diffusers {diffusers.__version__}"


def _identity(way: Way, questions: str) -> str:
    """What a row depends on: the way, the questions, and the bytes of judge and weights."""
    found = hashlib.sha256(f"{way}|{questions}".encode() + judge_path(0).read_bytes())
    folders = [made("model"), *(made(f"{name}_lora") for name, _ in way.adapters)]
    for path in sorted(path for folder in folders for path in folder.rglob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()[:24]


def _row(exam: Exam, way: Way, path: Path) -> dict[str, Any]:
    pipeline = load_pipeline(way.adapters)
    begun = time.process_time()
    pictures = sample(pipeline, way, exam.prompts)
    spent = (time.process_time() - begun) * 1000 / len(pictures)
    row = exam.mark(way.name, pictures, spent)
    path.write_text(json.dumps(row))
    print(json.dumps(row), flush=True)
    return row


def _measure(exam: Exam, chosen: list[Way], questions: str) -> list[dict[str, Any]]:
    folder = cache_dir() / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{_identity(way, questions)}.json" for way in chosen]
    missing = [(w, p) for w, p in zip(chosen, paths, strict=True) if not p.exists()]
    wait()
    for way, path in missing[rank() :: world()]:
        _row(exam, way, path)
    wait()
    return [json.loads(path.read_text()) for path in paths]
