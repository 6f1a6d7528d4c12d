"""One distillation from its first step, or its last checkpoint, to the adapter in its place."""

import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jobs.captioned import captioned
from jobs.distillation import Distillation
from jobs.errors import InvalidInput
from jobs.places import Place
from jobs.settings import Settings
from workers.depot import Depot
from workers.distill import STUDENT, Batch, Distiller, DistillSettings
from workers.distill_base import Base
from workers.distill_checkpoints import load_checkpoint, save_checkpoint
from workers.distill_data import draw, split
from workers.distill_report import loss_svg, registry_entry, sheet
from workers.engine import pick_device
from workers.gradients import average_gradients
from workers.lora import LORA_TARGETS
from workers.weights import digest

RESULT, ENTRY = "distillation.json", "accelerator.toml"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Pictures that are sampled meanwhile, and held-out batches at most that a loss is taken of.
_SAMPLES, _HELD_BATCHES = 16, 16
_SAY_EVERY_S = 5.0

Say = Callable[[dict[str, Any]], None]


def settings_of(plan: Distillation) -> DistillSettings:
    """The Distiller's settings of an accepted request."""
    return DistillSettings(
        rank=plan.rank,
        alpha=plan.alpha or plan.rank,
        learning_rate=plan.learning_rate,
        warm_steps=plan.warm_steps,
        total_steps=plan.total_steps,
        solver_steps=plan.solver_steps,
        w_min=plan.w_min,
        w_max=plan.w_max,
        w_fall=plan.w_fall,
        target_decay=plan.ema,
        distance=plan.loss,
        huber_c=plan.huber_c,
        seed=plan.train_seed,
        targets=tuple(plan.targets) or LORA_TARGETS,
        precision=_DTYPES[plan.precision],
    )


class DistillRun:
    """A run on one process of several; the first one writes and speaks for all.

    Loads everything, and goes on from the last checkpoint of `place` where there is one. Raises
    InvalidInput, BadConfiguration or what the store raises.
    """

    def __init__(
        self, plan: Distillation, place: Place, settings: Settings, say: Say, rank: int = 0
    ) -> None:
        self.plan, self.place, self.say, self.rank = plan, place, say, rank
        device = pick_device(settings.threads)
        recipe = plan.recipe
        found = captioned(plan.data, recipe.width, recipe.height, settings)
        if plan.pictures_sha256 not in ("", found.sha256):
            raise InvalidInput(
                "this process finds other pictures than those that were checked",
                where=", ".join(plan.data),
                remedy="every node needs the same pictures in the same place",
            )
        self.found, self.pictures = found, found.pictures
        self.rows, self.held = split(len(found.pictures), plan.held_out, plan.train_seed)
        self.base = Base(recipe, device, Depot.of(settings), plan.batch)
        if plan.gradient_checkpointing:
            self.base.unet.enable_gradient_checkpointing()
        self.distiller = Distiller(
            self.base.unet,
            self.base.engine.pipeline.scheduler,
            settings_of(plan),
            share=average_gradients,
            rank=rank,
        )
        self.losses: list[float] = []
        self.held_losses: list[tuple[int, float]] = []
        self.spent_s = 0.0
        state = load_checkpoint(place, device)
        if state is not None:
            self._load(state)
        self._said = 0.0

    def run(self) -> dict[str, Any]:
        """All steps that are left, then the adapter; what the result says."""
        plan, distiller = self.plan, self.distiller
        begun = distiller.steps_done
        self._say(f"{len(self.rows)} pictures, {len(self.held)} held out; from step {begun}")
        if not self.held_losses:
            self._look()
        while distiller.steps_done < plan.total_steps:
            tick = time.monotonic()
            loss = distiller.step(self._batch(distiller.steps_done))
            self.losses.append(loss)
            self.spent_s += time.monotonic() - tick
            self._after(loss)
        if self.rank:
            return {}
        if not self.held_losses or self.held_losses[-1][0] < plan.total_steps:
            self._look()
        return self._finish(resumed_from=begun)

    def held_out_loss(self) -> float:
        """The loss on held-out pictures, with the same noise, times and w whenever it is asked."""
        size = min(self.plan.batch, len(self.held))
        starts = range(0, len(self.held) - size + 1, size)[:_HELD_BATCHES]
        found = []
        with torch.no_grad():
            for number, first in enumerate(starts):
                rows = self.held[first : first + size]
                generator = torch.Generator().manual_seed(7_000_000 + number)
                batch = self.base.batch([self.pictures[row] for row in rows], generator)
                found.append(float(self.distiller.loss(batch, generator)))
        return sum(found) / len(found)

    def _batch(self, step: int) -> Batch:
        plan = self.plan
        rows = draw(self.rows, plan.train_seed, step, (self.rank, plan.processes), plan.batch)
        number = (plan.train_seed * 1_000_003 + step) * 256 + self.rank
        # Another stream than the Distiller's own of the same step.
        generator = torch.Generator().manual_seed(number ^ 0x5EED_0000)
        return self.base.batch([self.pictures[row] for row in rows], generator)

    def _after(self, loss: float) -> None:
        """Say, look and save, on the first process, where it is time."""
        if self.rank:
            return
        plan, step = self.plan, self.distiller.steps_done
        last = step == plan.total_steps
        if last or step % plan.sample_every == 0:
            self._look()
        if last or step % plan.save_every == 0:
            save_checkpoint(self.place, step, self._state())
        if last or time.monotonic() - self._said > _SAY_EVERY_S:
            self._said = time.monotonic()
            rate = self.spent_s / step
            self.say({"step": step, "of": plan.total_steps, "loss": loss, "s_per_step": rate})

    def _look(self) -> None:
        """The held-out loss, the curve, and samples, of the adapter as it is."""
        if self.rank:
            return
        step = self.distiller.steps_done
        self.held_losses.append((step, self.held_out_loss()))
        prompts = [self.pictures[row].caption for row in self.held[:_SAMPLES]]
        self.place.write(f"samples/{step:07d}.png", sheet(self._sample(prompts)))
        self.place.write("loss.svg", loss_svg(self.losses, self.held_losses).encode())
        self._say(f"step {step}: held-out loss {self.held_losses[-1][1]:.5f}, samples written")

    def _sample(self, prompts: list[str]) -> list[Any]:
        distiller = self.distiller
        self.base.unet.set_adapter(distiller.target)
        try:
            return self.base.sample(prompts, distiller.settings.precision)
        finally:
            self.base.unet.set_adapter(STUDENT)

    def _say(self, text: str) -> None:
        if self.rank == 0:
            self.say({"text": text})

    def _state(self) -> dict[str, Any]:
        return self.distiller.state() | {
            "losses": self.losses,
            "held_losses": self.held_losses,
            "spent_s": self.spent_s,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.distiller.load_state(state)
        self.losses, self.spent_s = list(state["losses"]), float(state["spent_s"])
        self.held_losses = [(int(step), float(loss)) for step, loss in state["held_losses"]]

    def _finish(self, resumed_from: int) -> dict[str, Any]:
        """The file, its entry, and the result, which is written last."""
        plan, distiller = self.plan, self.distiller
        modules = sum(STUDENT in getattr(m, "lora_A", {}) for m in self.base.unet.modules())
        parameters = sum(one.numel() for one in distiller.parameters)
        with tempfile.TemporaryDirectory() as folder:
            file = distiller.save(Path(folder))
            sha256 = digest(file)
            self.place.write(file.name, file)
        entry = registry_entry(plan, self.place.where, sha256, modules, parameters)
        self.place.write(ENTRY, entry.encode())
        result = {
            "name": plan.name,
            "steps": distiller.steps_done,
            "resumed_from": resumed_from,
            "loss": self.losses[-1],
            "held_out_loss": self.held_losses,
            "seconds": round(self.spent_s, 1),
            "pictures_per_second": plan.batch * plan.processes * len(self.losses) / self.spent_s,
            "trainable_parameters": parameters,
            "modules": modules,
            "peak_bytes": _peak(),
            "judge": self._judge(),
            "sha256": sha256,
            "out": self.place.where,
        }
        self.place.write(RESULT, json.dumps(result, indent=1).encode())
        return result

    def _judge(self) -> dict[str, float]:
        """What the tiny model's own judge says; nothing for other bases, or without one."""
        if self.plan.recipe.architecture != "tiny":
            return {}
        from workers.tiny.judging import judged

        return judged(self._sample)


def _peak() -> int:
    """Most memory that this process has had: the device's, or its own where there is none."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
