"""``python -m workers.tiny``: make the embedded model from nothing, measure it, look at it.

Every stage resumes from its checkpoint in the cache folder, and stages that are done are skipped;
to start a stage anew, remove its checkpoint.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from workers.tiny import MODEL_DIR, cache_dir
from workers.tiny.checkpoints import Run, join, rank

MINUTES = {"judge": 11.5, "text": 0.8, "autoencoder": 9.0, "teacher": 46.0, "lcm": 19.0}
"""Default time budgets of the stages: those of the shipped weights, on two CPU cores."""

STAGES = ("judge", "text", "autoencoder", "teacher", "model", "lcm", "outline", "evaluate", "sheet")


def _judge(minutes: float) -> None:
    from workers.tiny.classifier import judge_path, train_judge

    for seed in (0, 1):
        if not judge_path(seed).exists():
            train_judge(seed, minutes)


def _text(minutes: float) -> None:
    from workers.tiny.text import train_text_encoder

    train_text_encoder(minutes)


def _autoencoder(minutes: float) -> None:
    from workers.tiny.autoencoder import train_autoencoder

    train_autoencoder(minutes)


def _teacher(minutes: float, from_shipped: bool = False) -> None:
    from diffusers import UNet2DConditionModel

    from workers.tiny.evaluate import GUIDANCE, Way
    from workers.tiny.look import quick_look
    from workers.tiny.parts import shipped, trained_autoencoder, trained_text_encoder
    from workers.tiny.teacher import build_pipeline, build_unet, train_teacher

    vae, encoder, twin = trained_autoencoder(), trained_text_encoder(), build_unet().eval()
    pipeline = build_pipeline(vae, encoder, twin)

    def look(run: Run) -> None:
        twin.load_state_dict(run.averages["unet"].state)
        run.log(**quick_look(pipeline, Way("look", "dpm++", 12, GUIDANCE), "teacher"))

    start = shipped(UNet2DConditionModel, "unet") if from_shipped else None
    train_teacher(vae, encoder, minutes, look, start)


def _model() -> None:
    from workers.tiny.parts import trained_autoencoder, trained_text_encoder, trained_unet
    from workers.tiny.teacher import build_pipeline, save_pipeline

    parts = trained_autoencoder(), trained_text_encoder(), trained_unet()
    save_pipeline(build_pipeline(*parts), MODEL_DIR)


def _lcm(minutes: float) -> None:
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

    distil_lcm(LCM_SETTINGS, minutes, look)


def _outline() -> None:
    from workers.tiny.adapters import OUTLINE_SETTINGS, train_outline

    train_outline(OUTLINE_SETTINGS)


def _evaluate(seen: int, held_out: int, card: Path) -> None:
    from workers.tiny.card import as_markdown, fill_card
    from workers.tiny.evaluate import evaluate

    _judge(MINUTES["judge"])
    table = as_markdown(evaluate(seen, held_out))
    if rank() > 0:
        return
    (cache_dir() / "table.md").write_text(table)
    if card.exists():
        fill_card(card, table, MODEL_DIR / "README.md")
    print(table)


def _sheet(folder: Path) -> None:
    from workers.tiny.sheets import write_sheets

    write_sheets(folder)


def _all(processes: int) -> None:
    """Run every stage in a process of its own; the long ones in several that share the work."""
    shared = {"autoencoder", "teacher", "lcm", "evaluate"}
    for stage in STAGES:
        print(f"== {stage}", flush=True)
        launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        before = launch if stage in shared and processes > 1 else []
        environment = os.environ | {"OMP_NUM_THREADS": "1" if before else str(processes)}
        command = [sys.executable, *before, "-m", "workers.tiny", stage]
        subprocess.run(command, check=True, env=environment)


def _processes() -> int:
    return 1 if torch.cuda.is_available() else min(os.cpu_count() or 1, 4)


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.tiny", description=__doc__)
    parser.add_argument("stage", choices=("all", *STAGES))
    parser.add_argument("--minutes", type=float, help="time budget of a training stage")
    parser.add_argument(
        "--from-shipped",
        action="store_true",
        help="teacher: where there is no checkpoint, go on from the shipped weights",
    )
    parser.add_argument("--processes", type=int, default=_processes())
    parser.add_argument("--seen", type=int, default=400, help="pictures a row, seen pairs")
    parser.add_argument("--held-out", type=int, default=150, help="pictures a row, held-out pairs")
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--card", type=Path, default=Path("docs/tiny-model.md"))
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Run one stage, or all of them."""
    chosen = _arguments(words)
    join()
    timed: dict[str, Callable[[float], Any]] = {
        "judge": _judge,
        "text": _text,
        "autoencoder": _autoencoder,
        "teacher": partial(_teacher, from_shipped=chosen.from_shipped),
        "lcm": _lcm,
    }
    cache_dir().mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    if chosen.stage in timed:
        timed[chosen.stage](chosen.minutes or MINUTES[chosen.stage])
    elif chosen.stage == "all":
        _all(chosen.processes)
    elif chosen.stage == "evaluate":
        _evaluate(chosen.seen, chosen.held_out, chosen.card)
    elif chosen.stage == "sheet":
        _sheet(chosen.images)
    else:
        {"model": _model, "outline": _outline}[chosen.stage]()


if __name__ == "__main__":
    main()
