"""What a distillation shows of itself: the curve of its loss, its samples, its registry entry."""

import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jobs.contact_sheet import contact_sheet
from jobs.distillation import Distillation
from workers.lora import WEIGHTS_FILE

_WIDTH, _HEIGHT, _EDGE = 720, 320, 56


def sheet(pictures: Sequence[Any]) -> bytes:
    """A PNG of uint8 pictures [height, width, 3]; a broken one (None) is left out."""
    files = []
    for picture in pictures:
        if picture is not None:
            file = io.BytesIO()
            Image.fromarray(np.asarray(picture)).save(file, "PNG")
            files.append(file.getvalue())
    return contact_sheet(files)


def loss_svg(losses: Sequence[float], marks: Sequence[tuple[int, float]] = ()) -> str:
    """The loss of every step (grey), its running mean (blue), and held-out losses (dots), as SVG.

    The height is logarithmic; the running mean is over a fiftieth of the steps.
    """
    mean = _running(losses, max(1, len(losses) // 50))
    known = [value for value in (*losses, *(value for _, value in marks)) if value > 0]
    low, high = (min(known), max(known)) if known else (1.0, 1.0)
    floor, span = math.log(low), math.log(high / low) or 1.0

    def at(step: int, value: float) -> str:
        x = _EDGE + step / max(len(losses), 1) * (_WIDTH - 2 * _EDGE)
        share = (math.log(max(value, low)) - floor) / span
        return f"{x:.1f},{_HEIGHT - _EDGE - share * (_HEIGHT - 2 * _EDGE):.1f}"

    def line(values: Sequence[float], style: str) -> str:
        points = " ".join(at(step + 1, value) for step, value in enumerate(values))
        return f'<polyline fill="none" {style} points="{points}"/>'

    dots = "".join(
        '<circle r="4" fill="#c2410c" cx="{}" cy="{}"/>'.format(*at(step, value).split(","))
        for step, value in marks
    )
    words = "".join(
        f'<text x="{x}" y="{y}" font-family="sans-serif" font-size="12">{text}</text>'
        for x, y, text in (
            (_EDGE, 24, "loss (log), its running mean, and held-out loss (dots)"),
            (4, _EDGE, f"{high:.3g}"),
            (4, _HEIGHT - _EDGE, f"{low:.3g}"),
            (_WIDTH - 2 * _EDGE, _HEIGHT - 20, f"{len(losses)} steps"),
        )
    )
    grey, blue = 'stroke="#cbd5e1"', 'stroke="#1d4ed8" stroke-width="2"'
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    body = f"{line(losses, grey)}{line(mean, blue)}{dots}{words}"
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{paper}{body}</svg>\n'


def _running(values: Sequence[float], count: int) -> list[float]:
    total, found = 0.0, []
    for index, value in enumerate(values):
        total += value - (values[index - count] if index >= count else 0.0)
        found.append(total / min(index + 1, count))
    return found


def registry_entry(
    plan: Distillation, where: str, sha256: str, modules: int, parameters: int
) -> str:
    """The adapter's `[accelerators.NAME]` in TOML, for a file that FEWSTEP_CATALOG names."""
    source = where if where.startswith("s3://") else f"path:{where}"
    text = json.dumps  # A JSON string of printable text is a TOML string.
    return "\n".join(
        (
            f"[accelerators.{plan.name}]",
            f"architectures = [{text(plan.recipe.architecture)}]",
            f"source = {text(source, ensure_ascii=False)}",
            f"file = {text(WEIGHTS_FILE)}",
            f"sha256 = {text(sha256)}",
            f"licence = {text(plan.licence)}  # its base's: a LoRA is made of it",
            f"commercial = {text(plan.commercial)}",
            'layout = "peft"',
            f"modules = {modules}",
            f"parameters = {parameters}",
            'sampler = "lcm"',
            f"sampler_settings = {{ original_inference_steps = {plan.solver_steps} }}",
            "steps_min = 1",
            f"steps_max = {min(8, plan.solver_steps)}",
            f"steps = {plan.steps}",
            "guidance_max = 2.0",
            "guidance = 1.0",
            "weight = 1.0",
            "",
        )
    )
