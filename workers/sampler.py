"""Samplers: LCM and TCD as known scalars, and diffusers' own for the many-step teacher."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from jobs.errors import BadConfiguration
from jobs.recipe import Recipe
from workers.sampler_tables import Step, lcm_steps, tcd_steps

__all__ = [
    "DiffusersSampler",
    "Sampler",
    "Step",
    "TableSampler",
    "lcm_steps",
    "make_sampler",
    "make_scheduler",
    "tcd_steps",
]

#: Of `sampler_settings`: not the scheduler's configuration, but arguments of its calls.
_CALLS = ("timesteps", "eta")


class Sampler(Protocol):
    """Walks a batch of latents from noise to picture, one UNet prediction at a time."""

    #: What the UNet is told at each step, first to last: whole numbers, or Euler's fractions.
    timesteps: list[Any]
    #: Noise tensors an image needs: the initial latent and one for each re-noising.
    draws: int
    init_sigma: float

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """What the UNet sees at step `index`."""

    def step(
        self,
        prediction: torch.Tensor,
        latents: torch.Tensor,
        index: int,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        """The latents after step `index`."""


@dataclass
class TableSampler:
    """A sampler whose scalars are fixed beforehand, so that no step waits for the device."""

    steps: list[Step]
    timesteps: list[Any] = field(init=False)
    draws: int = field(init=False)
    init_sigma: float = 1.0

    def __post_init__(self) -> None:
        self.timesteps = [step.timestep for step in self.steps]
        noisy = [index for index, step in enumerate(self.steps) if step.c]
        self.draws = 1 + (noisy[-1] + 1 if noisy else 0)

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """The latents as they are."""
        return latents

    def step(
        self,
        prediction: torch.Tensor,
        latents: torch.Tensor,
        index: int,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        """`a*x + b*prediction + c*noise`; the last step takes no noise."""
        scalars = self.steps[index]
        moved = latents * scalars.a + prediction * scalars.b
        return moved if noise is None else moved + noise * scalars.c


class DiffusersSampler:
    """A deterministic diffusers scheduler (DDIM, DPM-Solver, Euler) for the teacher.

    A fresh one serves one batch: these schedulers keep the history of their steps.
    """

    draws = 1

    def __init__(self, scheduler: Any, steps: int, timesteps: list[int] | None = None) -> None:
        _set_timesteps(scheduler, steps, timesteps)
        self._scheduler = scheduler
        self._times = scheduler.timesteps
        self.timesteps = list(self._times)
        self.init_sigma = float(scheduler.init_noise_sigma)

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """The latents scaled as this scheduler wants them."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(latents, self._times[index])
        return scaled

    def step(
        self,
        prediction: torch.Tensor,
        latents: torch.Tensor,
        index: int,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        """One step of the scheduler, which draws no noise of its own."""
        result: torch.Tensor = self._scheduler.step(
            prediction, self._times[index], latents, return_dict=False
        )[0]
        return result


def make_sampler(recipe: Recipe, scheduler_config: dict[str, Any]) -> Sampler:
    """The sampler of a recipe, derived from the base's own scheduler configuration.

    Derived, so that prediction type and noise schedule carry over (v-prediction, zero SNR).
    Raises BadConfiguration for settings that the scheduler does not take.
    """
    scheduler = make_scheduler(recipe, scheduler_config)
    build = _TABLES.get(recipe.sampler)
    times = recipe.sampler_settings.get("timesteps")
    fixed = list(times) if isinstance(times, tuple) else None
    if build is None:
        return DiffusersSampler(scheduler, recipe.steps, fixed)
    _set_timesteps(scheduler, recipe.steps, fixed)
    return TableSampler(build(scheduler, recipe))


def make_scheduler(recipe: Recipe, scheduler_config: dict[str, Any]) -> Any:
    """The recipe's diffusers scheduler, before its timesteps are set."""
    import diffusers

    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "lcm": (diffusers.LCMScheduler, {"clip_sample": False, "thresholding": False}),
        "tcd": (diffusers.TCDScheduler, {"clip_sample": False, "thresholding": False}),
        "ddim": (diffusers.DDIMScheduler, {}),
        "dpm": (diffusers.DPMSolverMultistepScheduler, {}),
        "dpmpp": (diffusers.DPMSolverMultistepScheduler, {}),
        "euler": (diffusers.EulerDiscreteScheduler, {}),
    }
    kind, own = kinds[recipe.sampler]
    settings = {
        name: value for name, value in recipe.sampler_settings.items() if name not in _CALLS
    }
    scheduler = kind.from_config(scheduler_config, **{**own, **settings})
    strange = sorted(name for name in settings if name not in scheduler.config)
    if strange:
        # from_config only logs it, and goes on without.
        raise BadConfiguration(
            f"{kind.__name__} has no setting {strange[0]!r}", where=f"sampler {recipe.sampler!r}"
        )
    if recipe.sampler == "dpm":
        # Its constructor warns that the first version of this solver will go: we pin diffusers.
        scheduler.register_to_config(algorithm_type="dpmsolver", final_sigmas_type="sigma_min")
    return scheduler


def _set_timesteps(scheduler: Any, steps: int, timesteps: list[int] | None) -> None:
    if timesteps is None:
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(timesteps=timesteps)


_TABLES: dict[str, Callable[[Any, Recipe], list[Step]]] = {
    "lcm": lambda scheduler, recipe: lcm_steps(scheduler),
    "tcd": lambda scheduler, recipe: tcd_steps(scheduler, float(recipe.sampler_settings["eta"])),  # type: ignore[arg-type]
}
