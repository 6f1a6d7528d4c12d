"""The scalars of samplers whose step is linear in latents, prediction and noise."""

from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Step:
    """One step: `x <- a*x + b*prediction + c*noise`, at an integer timestep."""

    timestep: int
    a: float
    b: float
    c: float


#: Two numbers for x and prediction: what they are multiplied by.
Pair = tuple[float, float]


def lcm_steps(scheduler: Any) -> list[Step]:
    """The scalars of LCM multistep sampling for an `LCMScheduler` whose timesteps are set.

    From f(x, t) = c_skip x + c_out x0(x, t) and x' = sqrt(alpha') f + sqrt(1 - alpha') noise
    (Luo et al., arXiv 2310.04378, algorithm 3). Computed in float64, so that the host's rounding
    is below that of a float32 step. Raises ValueError where x0 is clipped.
    """
    alphas, times = _schedule(scheduler)
    table = []
    for time, after in zip(times, [*times[1:], None], strict=True):
        c_skip, c_out = (
            float(value) for value in scheduler.get_scalings_for_boundary_condition_discrete(time)
        )
        of_x, of_prediction = _x0(scheduler.config.prediction_type, alphas[time])
        a, b = c_skip + c_out * of_x, c_out * of_prediction
        if after is None:
            table.append(Step(time, a, b, 0.0))
            continue
        signal, c = alphas[after] ** 0.5, (1.0 - alphas[after]) ** 0.5
        table.append(Step(time, signal * a, signal * b, c))
    return table


def tcd_steps(scheduler: Any, eta: float) -> list[Step]:
    """The scalars of strategic stochastic sampling for a `TCDScheduler` whose timesteps are set.

    x_s = sqrt(alpha_s) x0 + sqrt(1 - alpha_s) eps at s = (1 - eta) t', then noise up to t'
    (Zheng et al., arXiv 2402.19159, algorithm 4, where eta is called gamma). Its last step, and
    every step at eta 0, draws none. Raises ValueError where x0 is clipped.
    """
    alphas, times = _schedule(scheduler)
    kind = scheduler.config.prediction_type
    table = []
    for time, after in zip(times, [*times[1:], None], strict=True):
        # In float32, as diffusers rounds it: 0.7 * 30 is 21 there and 20.999... in float64.
        middle = _below(after or 0, eta)
        signal, noise = alphas[middle] ** 0.5, (1.0 - alphas[middle]) ** 0.5
        clean, eps = _x0(kind, alphas[time]), _eps(kind, alphas[time])
        a = signal * clean[0] + noise * eps[0]
        b = signal * clean[1] + noise * eps[1]
        if after is None or eta == 0.0:
            table.append(Step(time, a, b, 0.0))
            continue
        share = alphas[after] / alphas[middle]
        table.append(Step(time, share**0.5 * a, share**0.5 * b, (1.0 - share) ** 0.5))
    return table


def _below(time: int, eta: float) -> int:
    return floor(float(np.float32(1.0 - eta) * np.float32(time)))


def _schedule(scheduler: Any) -> tuple[list[float], list[int]]:
    """Cumulative alphas of all timesteps in float64, and the timesteps to walk."""
    config = scheduler.config
    if config.clip_sample or config.thresholding:
        raise ValueError("clipping or thresholding x0 is not linear: set both to False")
    return scheduler.alphas_cumprod.double().tolist(), [int(t) for t in scheduler.timesteps]


def _x0(prediction_type: str, alpha: float) -> Pair:
    """x0 = first * x + second * prediction, for cumulative alpha of the timestep."""
    signal, noise = alpha**0.5, (1.0 - alpha) ** 0.5
    if prediction_type == "epsilon":
        return 1.0 / signal, -noise / signal
    if prediction_type == "v_prediction":
        return signal, -noise
    if prediction_type == "sample":
        return 0.0, 1.0
    raise ValueError(f"unknown prediction type {prediction_type!r}")


def _eps(prediction_type: str, alpha: float) -> Pair:
    """The noise in x as `_x0` gives its x0."""
    signal, noise = alpha**0.5, (1.0 - alpha) ** 0.5
    if prediction_type == "epsilon":
        return 0.0, 1.0
    if prediction_type == "v_prediction":
        return noise, signal
    return 1.0 / noise, -signal / noise
