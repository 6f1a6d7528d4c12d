"""The arithmetic of distillation: noise schedules, predictions, boundary scalings, the loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _spread(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Curve:
    """A noise schedule z_t = alpha_t x + sigma_t eps, and what a UNet on it predicts."""

    alphas: Tensor
    """sqrt of the schedule's ``alphas_cumprod``: float [steps]."""
    prediction: str
    """"epsilon" or "v_prediction"."""

    @staticmethod
    def of(scheduler: Any) -> "Curve":
        """The curve of any diffusers scheduler with ``alphas_cumprod``."""
        prediction = str(scheduler.config.prediction_type)
        if prediction not in ("epsilon", "v_prediction"):
            raise ValueError(f"cannot distil a model that predicts {prediction!r}")
        return Curve(scheduler.alphas_cumprod.sqrt().clone(), prediction)

    @property
    def length(self) -> int:
        """Number of training timesteps."""
        return len(self.alphas)

    def at(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of int64 times [n], shaped to multiply ``like``."""
        alpha = self.alphas[times.cpu()]
        return _spread(alpha, like), _spread((1 - alpha.square()).clamp(min=0).sqrt(), like)

    def add_noise(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """z_t from x and eps."""
        alpha, sigma = self.at(times, clean)
        return alpha * clean + sigma * noise

    def velocity(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """v = alpha eps - sigma x (arXiv 2202.00512)."""
        alpha, sigma = self.at(times, clean)
        return alpha * noise - sigma * clean

    def aim(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the UNet should predict: eps or v."""
        return noise if self.prediction == "epsilon" else self.velocity(clean, noise, times)

    def clean(self, noisy: Tensor, predicted: Tensor, times: Tensor) -> Tensor:
        """x from z_t and the UNet's prediction."""
        alpha, sigma = self.at(times, noisy)
        if self.prediction == "epsilon":
            return (noisy - sigma * predicted) / alpha
        return alpha * noisy - sigma * predicted

    def noise(self, noisy: Tensor, predicted: Tensor, times: Tensor) -> Tensor:
        """eps from z_t and the UNet's prediction."""
        if self.prediction == "epsilon":
            return predicted
        alpha, sigma = self.at(times, noisy)
        return alpha * predicted + sigma * noisy


def boundary_scalings(
    times: Tensor, ndim: int, sigma_data: float = 0.5, scaling: float = 10.0
) -> tuple[Tensor, Tensor]:
    """c_skip and c_out of int64 times [n]: 1 and 0 at t = 0, as in diffusers' `LCMScheduler`."""
    scaled = times.float() * scaling
    skip = sigma_data**2 / (scaled.square() + sigma_data**2)
    out = scaled / (scaled.square() + sigma_data**2).sqrt()
    shape = (-1, *[1] * (ndim - 1))
    return skip.view(shape), out.view(shape)


def huber(made: Tensor, wanted: Tensor, c: float) -> Tensor:
    """Pseudo-Huber distance of each element: sqrt(d^2 + c^2) - c."""
    return torch.sqrt((made - wanted).square() + c * c) - c
