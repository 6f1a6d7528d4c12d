"""Training that may stop at any moment: a time budget, averaged weights, and checkpoints.

A budget is in minutes of training, counted over all resumes, so that a slow machine ends in time
and a fast one learns more.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from workers.tiny import cache_dir

_SAVE_EVERY_S = 60.0


def cosine(progress: float, warm: float = 0.03, floor: float = 0.02) -> float:
    """Learning-rate factor at ``progress`` in 0..1: linear warm-up, then half a cosine."""
    if progress < warm:
        return max(progress / warm, 0.02)
    rest = min((progress - warm) / (1 - warm), 1.0)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * rest))


def rank() -> int:
    """This process' number among those that train together; 0 when it trains alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def device() -> torch.device:
    """Where training happens: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def placed(module: Any) -> Any:
    """The module where training happens, with its images stored channels last."""
    return module.to(device()).to(memory_format=torch.channels_last)


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait() -> None:
    """Wait until every process that trains along has come here."""
    if distributed.is_initialized():
        distributed.barrier()


def join() -> None:
    """Join the other processes when started by ``torchrun``; they share every batch's gradient."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo")
        torch.set_num_threads(1)


def share_gradients(parameters: list[nn.Parameter], number: float = 0.0) -> float:
    """Average gradients, and one more number, over the processes; returns that average."""
    if not distributed.is_initialized():
        return number
    found = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in found] + [torch.tensor([number])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for grad in found:
        grad.copy_(flat[start : start + grad.numel()].view_as(grad))
        start += grad.numel()
    return float(flat[-1])


class Average:
    """Exponential moving average of a module's floating-point state."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the module; the first steps move faster, so that the start is forgotten."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)


class Run:
    """One training run: modules, optimiser, average, step count and seconds spent."""

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        optimiser: torch.optim.Optimizer,
        minutes: float,
        decay: float = 0.998,
    ) -> None:
        self.name, self.modules, self.optimiser = name, dict(modules), optimiser
        self.rates = [float(group["lr"]) for group in optimiser.param_groups]
        self.averages = {key: Average(module, decay) for key, module in self.modules.items()}
        self.budget_s = minutes * 60
        self.step, self.spent_s = 0, 0.0
        self.path = cache_dir() / f"{name}.pt"
        self._tick = self._saved = time.monotonic()
        if self.path.exists():
            self._load()

    @property
    def progress(self) -> float:
        """Share of the time budget that is spent."""
        return min(self.spent_s / self.budget_s, 1.0)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.spent_s >= self.budget_s

    def update(self, loss: torch.Tensor, clip: float = 1.0) -> None:
        """One optimiser step on ``loss`` at the rate of the moment; checkpoints once a minute."""
        factor = cosine(self.progress)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        now = time.monotonic()
        self.spent_s += now - self._tick
        self._tick = now
        self.spent_s = share_gradients(parameters, self.spent_s)
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        self.optimiser.step()
        for key, module in self.modules.items():
            self.averages[key].update(module)
        self.step += 1
        if now - self._saved > _SAVE_EVERY_S or self.done:
            self.save()

    def rest(self) -> None:
        """Leave out the time since the last step, spent on looking rather than on training."""
        self._tick = time.monotonic()

    def log(self, **values: Any) -> None:
        """Print one line and append it to the run's log file."""
        if rank() > 0:
            return
        line = json.dumps({"run": self.name, "step": self.step, "s": round(self.spent_s), **values})
        print(line, flush=True)
        with self.path.with_suffix(".log").open("a") as file:
            file.write(line + "\n")

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self._saved = time.monotonic()
        if rank() > 0:
            return
        state = {
            "modules": {key: module.state_dict() for key, module in self.modules.items()},
            "averages": {key: average.state for key, average in self.averages.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
            "rng": torch.get_rng_state(),
        }
        save_state(state, self.path)

    def _load(self) -> None:
        state = torch.load(self.path, map_location=device(), weights_only=True)
        for key, module in self.modules.items():
            module.load_state_dict(state["modules"][key])
            self.averages[key].state = state["averages"][key]
            self.averages[key].steps = state["step"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent_s = state["step"], state["spent_s"]
        torch.set_rng_state(state["rng"].cpu())
        self.rest()

    def averaged(self, key: str) -> nn.Module:
        """The module, loaded with its averaged weights, in evaluation mode, without gradients."""
        module = self.modules[key]
        module.load_state_dict(self.averages[key].state)
        return module.eval().requires_grad_(False)


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """``torch.save`` through a temporary name, so that no reader meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
