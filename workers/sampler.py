"""Samplers: the LCM step as three known scalars, and diffusers' own for the many-step teacher."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from jobs.recipe import Recipe


@dataclass(frozen=True)
class Step:
    """One LCM step: `x <- a*x + b*prediction + c*noise`, at an integer timestep."""

    timestep: int
    a: float
    b: float
    c: float


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


def lcm_steps(scheduler: Any, steps: int) -> list[Step]:
    """The scalars of LCM multistep sampling for `scheduler` (a diffusers `LCMScheduler`).

    From f(x, t) = c_skip x + c_out x0(x, t) and x' = sqrt(alpha') f + sqrt(1 - alpha') noise
    (Luo et al., arXiv 2310.04378, algorithm 3), for epsilon- and v-prediction, where x0 is linear
    in x and in the UNet's prediction. Computed in float64, so that the host's rounding is below
    that of a float32 step.
    """
    config = scheduler.config
    if config.clip_sample or config.thresholding:
        raise ValueError("clipping or thresholding x0 is not linear: set both to False")
    scheduler.set_timesteps(steps)
    alphas = scheduler.alphas_cumprod.double()
    times = [int(t) for t in scheduler.timesteps]
    table = []
    for index, time in enumerate(times):
        last = index == len(times) - 1
        c_skip, c_out = (
            float(value) for value in scheduler.get_scalings_for_boundary_condition_discrete(time)
        )
        x_of_x, x_of_prediction = _x0(config.prediction_type, float(alphas[time]))
        a, b = c_skip + c_out * x_of_x, c_out * x_of_prediction
        if last:
            table.append(Step(time, a, b, 0.0))
            continue
        after = float(alphas[times[index + 1]])
        signal, c = after**0.5, (1.0 - after) ** 0.5
        table.append(Step(time, signal * a, signal * b, c))
    return table


def _x0(prediction_type: str, alpha: float) -> tuple[float, float]:
    """x0 = first * x + second * prediction, for cumulative alpha of the timestep."""
    signal, noise = alpha**0.5, (1.0 - alpha) ** 0.5
    if prediction_type == "epsilon":
        return 1.0 / signal, -noise / signal
    if prediction_type == "v_prediction":
        return signal, -noise
    if prediction_type == "sample":
        return 0.0, 1.0
    raise ValueError(f"unknown prediction type {prediction_type!r}")


@dataclass
class LcmSampler:
    """LCM multistep sampling; scalars are fixed beforehand, so no step waits for the device."""

    steps: list[Step]
    timesteps: list[Any] = field(init=False)
    draws: int = field(init=False)
    init_sigma: float = 1.0

    def __post_init__(self) -> None:
        self.timesteps = [step.timestep for step in self.steps]
        self.draws = len(self.steps)

    def model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """LCM feeds the latents as they are."""
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
    """A deterministic diffusers scheduler (DDIM, DPM-Solver++, Euler) for the teacher.

    A fresh one serves one batch: these schedulers keep the history of their steps.
    """

    draws = 1

    def __init__(self, scheduler: Any, steps: int) -> None:
        scheduler.set_timesteps(steps)
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
    """
    import diffusers

    kinds = {
        "lcm": diffusers.LCMScheduler,
        "ddim": diffusers.DDIMScheduler,
        "dpmpp": diffusers.DPMSolverMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
    }
    own = {"clip_sample": False, "thresholding": False} if recipe.sampler == "lcm" else {}
    scheduler = kinds[recipe.sampler].from_config(
        scheduler_config, **{**own, **recipe.sampler_settings}
    )
    if recipe.sampler == "lcm":
        return LcmSampler(lcm_steps(scheduler, recipe.steps))
    return DiffusersSampler(scheduler, recipe.steps)
