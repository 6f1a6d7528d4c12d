"""Latent consistency distillation: its arithmetic, one short run, a stop in between, the file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open

from workers.distill import STUDENT, TARGET, Batch, Distiller, DistillSettings
from workers.distill_curve import Curve, boundary_scalings, huber
from workers.lora import save_lora
from workers.style import STYLE, StyleSettings, train_style

SETTINGS = DistillSettings(
    rank=4, alpha=8, learning_rate=2e-3, warm_steps=1, total_steps=1000, w_min=1.0, w_max=2.0
)


def _scheduler(prediction: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        rescale_betas_zero_snr=prediction == "v_prediction",
        timestep_spacing="trailing",
    )


def _unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=8,
        norm_num_groups=4,
    )


def _batch(step: int, n: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(step)
    latents = torch.randn(n, 4, 8, 8, generator=generator)
    states = torch.randn(n, 5, 8, generator=generator)
    return Batch(latents, states, torch.zeros_like(states))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_solver_step_is_a_guided_ddim_step(prediction: str) -> None:
    scheduler, unet = _scheduler(prediction), _unet()
    distiller = Distiller(unet, scheduler, SETTINGS)
    batch = _batch(0)
    start, end, w = torch.full((4,), 759), torch.full((4,), 719), torch.full((4,), 1.5)
    with torch.no_grad():
        unet.disable_adapters()
        told = unet(batch.latents, start, batch.states).sample
        free = unet(batch.latents, start, batch.empty).sample
        unet.enable_adapters()
    scheduler.set_timesteps(25)
    assert 759 in scheduler.timesteps
    guided = free + 2.5 * (told - free)
    wanted = scheduler.step(guided, 759, batch.latents).prev_sample
    made = distiller.solve(batch.latents, start, end, w, batch)
    assert torch.allclose(made, wanted, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_curve_inverts_its_own_noise(prediction: str) -> None:
    curve = Curve.of(_scheduler(prediction))
    clean, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    times = torch.tensor([19, 499, 900])
    noisy, aim = curve.add_noise(clean, noise, times), curve.aim(clean, noise, times)
    assert torch.allclose(curve.clean(noisy, aim, times), clean, atol=1e-4)
    assert torch.allclose(curve.noise(noisy, aim, times), noise, atol=1e-4)


def test_a_prediction_it_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        Curve.of(_scheduler("sample"))


def test_boundary_scalings_are_those_of_the_sampler() -> None:
    sampler = LCMScheduler()
    for time in (0, 19, 259, 999):
        skip, out = boundary_scalings(torch.tensor([time]), 1)
        wanted = sampler.get_scalings_for_boundary_condition_discrete(time)
        assert (float(skip), float(out)) == pytest.approx(wanted, abs=1e-6)


def test_huber_by_hand() -> None:
    made = huber(torch.tensor([3.0]), torch.tensor([0.0]), 4.0)
    assert float(made) == pytest.approx(1.0)


def _train(distiller: Distiller, steps: int, batches: Callable[[int], Batch]) -> list[float]:
    return [distiller.step(batches(distiller.steps_done)) for _ in range(steps)]


def test_distillation_lowers_the_loss_and_leaves_the_base_alone() -> None:
    unet = _unet()
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    distiller = Distiller(unet, _scheduler("v_prediction"), replace(SETTINGS, seed=3))
    losses = _train(distiller, 40, lambda step: _batch(step % 4, 8))
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    after = unet.state_dict()
    for key, value in before.items():
        base = key if key in after else ".base_layer.".join(key.rsplit(".", 1))
        assert torch.equal(after[base], value), key


def test_a_resumed_run_equals_an_unbroken_one() -> None:
    whole = Distiller(_unet(), _scheduler("epsilon"), SETTINGS)
    _train(whole, 5, _batch)
    first = Distiller(_unet(), _scheduler("epsilon"), SETTINGS)
    _train(first, 2, _batch)
    second = Distiller(_unet(), _scheduler("epsilon"), SETTINGS)
    second.load_state(first.state())
    _train(second, 3, _batch)
    for name in (STUDENT, TARGET):
        one, other = whole.adapter(name), second.adapter(name)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_target_follows_the_student() -> None:
    distiller = Distiller(_unet(), _scheduler("epsilon"), replace(SETTINGS, target_decay=0.5))
    before = distiller.adapter(TARGET)
    _train(distiller, 1, _batch)
    student, target = distiller.adapter(STUDENT), distiller.adapter(TARGET)
    for key, value in target.items():
        assert torch.allclose(value, (before[key] + student[key]) / 2, atol=1e-7)


def test_a_saved_lora_is_the_trained_one(tmp_path: Path) -> None:
    distiller = Distiller(_unet(), _scheduler("epsilon"), SETTINGS)
    _train(distiller, 3, _batch)
    path = distiller.save(tmp_path)
    with safe_open(path, "pt") as file:
        assert '"unet.lora_alpha": 8' in file.metadata()["lora_adapter_metadata"]
    batch, times = _batch(9), torch.full((4,), 499)
    distiller.unet.set_adapter(TARGET)
    wanted = distiller.unet(batch.latents, times, batch.states).sample
    plain = _unet()
    state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
        tmp_path, return_lora_metadata=True
    )
    StableDiffusionPipeline.load_lora_into_unet(
        state, alphas, plain, adapter_name="fast", metadata=metadata
    )
    made = plain(batch.latents, times, batch.states).sample
    assert torch.allclose(made, wanted, atol=2e-3)
    assert not torch.allclose(made, _unet()(batch.latents, times, batch.states).sample, atol=2e-3)


def test_a_run_may_begin_from_a_saved_lora(tmp_path: Path) -> None:
    first = Distiller(_unet(), _scheduler("epsilon"), SETTINGS)
    _train(first, 3, _batch)
    first.save(tmp_path)
    second = Distiller(_unet(), _scheduler("epsilon"), SETTINGS)
    second.begin_from(tmp_path)
    for name in (STUDENT, TARGET):
        found, wanted = second.adapter(name), first.adapter(TARGET)
        assert all(torch.allclose(found[key], wanted[key], atol=1e-3) for key in wanted)
    assert any(bool(value.any()) for key, value in found.items() if ".lora_B." in key)


def test_guidance_may_fall_towards_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, w_min=2.0, w_max=2.0, w_fall=0.5)
    distiller = Distiller(_unet(), _scheduler("epsilon"), settings)
    asked: list[tuple[torch.Tensor, torch.Tensor]] = []
    solve = distiller.solve

    def spy(noisy: Any, start: Any, end: Any, w: torch.Tensor, batch: Batch) -> torch.Tensor:
        asked.append((start, w))
        return solve(noisy, start, end, w, batch)

    monkeypatch.setattr(distiller, "solve", spy)
    _train(distiller, 2, _batch)
    for start, w in asked:
        assert torch.allclose(w, 1 + (start + 1) / 1000)


def test_a_style_trains_by_the_bases_own_loss(tmp_path: Path) -> None:
    unet: Any = _unet()
    losses: list[float] = []
    train_style(
        unet,
        _scheduler("epsilon"),
        lambda step: _batch(step % 2, 8),
        StyleSettings(rank=4, alpha=4, learning_rate=5e-3, steps=40),
        lambda _, loss: losses.append(loss),
    )
    assert sum(losses[-10:]) < sum(losses[:10])
    assert save_lora(unet, STYLE, tmp_path).stat().st_size > 1000
