"""``python -m workers.tiny``: make the embedded model from nothing, measure it, look at it.

Every stage resumes from its checkpoint in the cache folder, and stages that are done are skipped;
to start a stage anew, remove its checkpoint.
"""

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from workers.tiny import LCM_LORA_DIR, cache_dir, made
from workers.tiny.checkpoints import Run, join, rank
from workers.tiny.latents import PARTS

MINUTES = {
    "judge": 11.5,
    "text": 0.8,
    "autoencoder": 9.0,
    "teacher": 100.0,
    "decoder": 10.0,
    "lcm": 40.0,
}
"""Default time budgets of the stages: about those of the shipped weights, on two CPU cores."""

STAGES = (*MINUTES, "model", "outline", "evaluate", "sheet")


def _judge(minutes: float, seeds: tuple[int, ...] = (0, 1), ship: bool = True) -> None:
    from workers.tiny.classifier import judge_path, ship_judge, train_judge

    for seed in seeds:
        if not judge_path(seed).exists():
            train_judge(seed, minutes)
    if ship and rank() == 0:
        ship_judge()


def _text(minutes: float) -> None:
    from workers.tiny.text import train_text_encoder

    train_text_encoder(minutes)


def _autoencoder(minutes: float) -> None:
    from workers.tiny.autoencoder import train_autoencoder

    train_autoencoder(minutes)


def _teacher(minutes: float, from_shipped: bool, parts: int) -> None:
    from diffusers import UNet2DConditionModel

    from workers.tiny.evaluate import GUIDANCE, Way
    from workers.tiny.look import quick_look
    from workers.tiny.parts import plain_autoencoder, shipped, trained_text_encoder
    from workers.tiny.teacher import build_pipeline, build_unet, train_teacher

    vae, encoder, twin = plain_autoencoder(), trained_text_encoder(), build_unet().eval()
    pipeline = build_pipeline(vae, encoder, twin)

    def look(run: Run) -> None:
        twin.load_state_dict(run.averages["unet"].state)
        run.log(**quick_look(pipeline, Way("look", "dpm++", 12, GUIDANCE), "teacher"))

    start = shipped(UNet2DConditionModel, "unet") if from_shipped else None
    train_teacher(vae, encoder, minutes, look, start, parts)


def _decoder(minutes: float) -> None:
    from workers.tiny.decoder import train_decoder
    from workers.tiny.parts import plain_autoencoder, trained_text_encoder, trained_unet

    train_decoder(plain_autoencoder(), trained_text_encoder(), trained_unet(), minutes)


def _model() -> None:
    from workers.tiny.parts import trained_autoencoder, trained_text_encoder, trained_unet
    from workers.tiny.teacher import build_pipeline, save_pipeline

    parts = trained_autoencoder(), trained_text_encoder(), trained_unet()
    save_pipeline(build_pipeline(*parts), made("model"))


def _lcm(minutes: float, from_shipped: bool, parts: int) -> None:
    from workers.distill import STUDENT, TARGET, Distiller
    from workers.tiny.adapters import LCM_SETTINGS, distil_lcm
    from workers.tiny.evaluate import Way
    from workers.tiny.look import quick_look
    from workers.tiny.parts import trained_autoencoder, trained_text_encoder
    from workers.tiny.teacher import build_pipeline

    vae, encoder = trained_autoencoder(), trained_text_encoder()

    def look(distiller: Distiller) -> None:
        if distiller.steps_done % 100:
            return
        distiller.unet.set_adapter(TARGET)
        pipeline = build_pipeline(vae, encoder, distiller.unet.eval())
        for steps in (1, 4):
            print(steps, quick_look(pipeline, Way("look", "lcm", steps), f"lcm{steps}"), flush=True)
        distiller.unet.train().set_adapter(STUDENT)

    start = LCM_LORA_DIR if from_shipped else None
    distil_lcm(LCM_SETTINGS, minutes, look, start, parts)


def _outline(scale: float) -> None:
    from workers.tiny.adapters import OUTLINE_SETTINGS, train_outline

    train_outline(replace(OUTLINE_SETTINGS, steps=_scaled(OUTLINE_SETTINGS.steps, scale, 20)))


def _evaluate(seen: int, held_out: int, card: Path) -> None:
    from workers.tiny.card import as_markdown, fill_card
    from workers.tiny.evaluate import evaluate

    _judge(MINUTES["judge"], (0,), ship=False)
    table = as_markdown(evaluate(seen, held_out))
    if rank() > 0:
        return
    (cache_dir() / "table.md").write_text(table)
    if card.exists():
        fill_card(card, table, made("model") / "README.md")
    print(table)


def _sheet(folder: Path) -> None:
    from workers.tiny.sheets import write_sheets

    write_sheets(folder)


def _scaled(whole: int, scale: float, least: int = 1) -> int:
    return max(math.ceil(whole * min(scale, 1.0)), least)


def _all(words: list[str], processes: int) -> None:
    """Run every stage in a process of its own; the long ones in several that share the work."""
    shared = {"autoencoder", "teacher", "decoder", "lcm", "evaluate"}
    for stage in STAGES:
        print(f"== {stage}", flush=True)
        launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        before = launch if stage in shared and processes > 1 else []
        environment = os.environ | {"OMP_NUM_THREADS": "1" if before else str(processes)}
        command = [sys.executable, *before, "-m", "workers.tiny", stage, *words]
        subprocess.run(command, check=True, env=environment)


def _processes() -> int:
    return 1 if torch.cuda.is_available() else min(os.cpu_count() or 1, 4)


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny", description=__doc__)
    parser.add_argument("stage", choices=("all", *STAGES))
    parser.add_argument("--minutes", type=float, help="time budget of a training stage")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="multiply all budgets, sets and samples: 0.002 shows in minutes that the chain runs",
    )
    parser.add_argument(
        "--from-shipped",
        action="store_true",
        help="teacher, lcm: where there is no checkpoint, go on from the shipped weights",
    )
    parser.add_argument("--processes", type=int, default=_processes())
    parser.add_argument("--seen", type=int, default=400, help="pictures a row, seen pairs")
    parser.add_argument("--held-out", type=int, default=150, help="pictures a row, held-out pairs")
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--card", type=Path, default=Path("docs/tiny-model.md"))
    return parser.parse_args(words)


def _run_stage(chosen: argparse.Namespace) -> None:
    parts = _scaled(PARTS, chosen.scale)
    timed: dict[str, Callable[[float], Any]] = {
        "judge": _judge,
        "text": _text,
        "autoencoder": _autoencoder,
        "teacher": partial(_teacher, from_shipped=chosen.from_shipped, parts=parts),
        "decoder": _decoder,
        "lcm": partial(_lcm, from_shipped=chosen.from_shipped, parts=parts),
    }
    if chosen.stage in timed:
        timed[chosen.stage](chosen.minutes or MINUTES[chosen.stage] * chosen.scale)
    elif chosen.stage == "evaluate":
        seen, held_out = (_scaled(n, chosen.scale, 10) for n in (chosen.seen, chosen.held_out))
        _evaluate(seen, held_out, chosen.card)
    elif chosen.stage == "sheet":
        _sheet(chosen.images)
    elif chosen.stage == "outline":
        _outline(chosen.scale)
    else:
        _model()


def main(words: list[str] | None = None) -> None:
    """Run one stage, or all of them."""
    words = sys.argv[1:] if words is None else words
    chosen = _arguments(words)
    join()
    cache_dir().mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    if chosen.stage == "all":
        _all([word for word in words if word != "all"], chosen.processes)
    else:
        _run_stage(chosen)


if __name__ == "__main__":
    main()
