"""The LCM step as three scalars is diffusers' LCMScheduler, and draws its noise in its order."""

from typing import Any

import pytest
import torch
from diffusers import LCMScheduler

from workers.noise import draw_noise
from workers.sampler import TableSampler, lcm_steps

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}


def timed(scheduler: Any, steps: int) -> Any:
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("config", [SD, {**SD, "prediction_type": "v_prediction"}, ZERO_SNR])
@pytest.mark.parametrize("original", [25, 50])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_equal_to_diffusers(config: dict[str, Any], original: int, steps: int) -> None:
    def scheduler() -> LCMScheduler:
        return LCMScheduler(**config, clip_sample=False, original_inference_steps=original)

    seeds, shape = [3, 4_000_000_000, 0], (4, 8, 8)
    predictions = torch.randn((steps, 3, *shape), generator=torch.Generator().manual_seed(1))

    ours = TableSampler(lcm_steps(timed(scheduler(), steps)))
    noise = draw_noise(seeds, shape, ours.draws)
    latents = noise[0] * ours.init_sigma
    for index in range(steps):
        more = noise[index + 1] if index + 1 < ours.draws else None
        latents = ours.step(predictions[index], latents, index, more)

    theirs = scheduler()
    theirs.set_timesteps(steps)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    expected = torch.cat([torch.randn((1, *shape), generator=one) for one in generators])
    for index, timestep in enumerate(theirs.timesteps):
        expected = theirs.step(
            predictions[index], timestep, expected, generator=generators, return_dict=False
        )[0]

    assert ours.timesteps == theirs.timesteps.tolist()
    scale = max(1.0, float(expected.abs().max()))
    assert float((latents - expected).abs().max()) / scale < 1e-5


def test_clipping_is_refused() -> None:
    with pytest.raises(ValueError, match="not linear"):
        lcm_steps(timed(LCMScheduler(**SD, clip_sample=True), 4))


def test_noise_knows_no_neighbours() -> None:
    together = draw_noise([1, 2, 3], (4, 2, 2), 3)
    alone = draw_noise([2], (4, 2, 2), 3)
    assert torch.equal(together[:, 1], alone[:, 0])
    assert not torch.equal(together[:, 0], together[:, 1])
