"""What the tiny model's training rests on: loss weights, timesteps, windows, scaled budgets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from workers.tiny import MODEL_DIR, made
from workers.tiny.__main__ import main
from workers.tiny.captions import SHAPES, Attributes
from workers.tiny.classifier import to_tensor
from workers.tiny.decoder import object_windows
from workers.tiny.latents import draw_rows, draw_times, latent_set, object_weight
from workers.tiny.parts import trained_autoencoder
from workers.tiny.scenes import render


def _scenes(sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    table = np.array([[0, 0, 0, 0, size] for size in sizes])
    scenes = render(np.random.default_rng(0), Attributes.of(table))
    return to_tensor(scenes.pictures), torch.from_numpy(scenes.boxes)


def test_a_small_object_weighs_about_as_much_as_a_big_one() -> None:
    _, boxes = _scenes([0] * 200 + [1] * 200)
    extra = (object_weight(boxes) - 1).sum((1, 2, 3))
    small, big = float(extra[:200].mean()), float(extra[200:].mean())
    assert small == pytest.approx(big, rel=0.15)
    assert float(object_weight(boxes).min()) == 1


def test_timesteps_are_all_there_and_dense_where_shapes_are_made() -> None:
    torch.manual_seed(0)
    times = torch.cat([draw_times(64) for _ in range(200)])
    assert int(times.min()) >= 0
    assert int(times.max()) <= 999
    shaping = ((times >= 120) & (times < 500)).float().mean()
    assert float(shaping) == pytest.approx(0.5 + 0.5 * 0.38, abs=0.02)
    assert float((times >= 900).float().mean()) == pytest.approx(0.05, abs=0.01)


def test_stars_and_squares_come_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWSTEP_TINY_CACHE", str(tmp_path))
    data = latent_set(trained_autoencoder(), parts=2, n=40)
    rows = draw_rows(np.random.default_rng(0), data, 4000)
    drawn = np.bincount(rows.numpy(), minlength=80)
    hard = np.isin(data["attributes"][:, 0].numpy(), [SHAPES.index("star"), SHAPES.index("square")])
    assert 0 < hard.sum() < 80
    assert drawn[hard].mean() == pytest.approx(2 * drawn[~hard].mean(), rel=0.2)


def test_a_window_is_the_same_place_in_latents_and_pictures() -> None:
    pictures, boxes = _scenes([0, 0, 1, 1])
    latents = torch.nn.functional.avg_pool2d(pictures, 4)
    small, big = object_windows(latents, pictures, boxes.numpy())
    assert small.shape == (4, 3, 8, 8)
    assert big.shape == (4, 3, 32, 32)
    assert torch.allclose(torch.nn.functional.avg_pool2d(big, 4), small, atol=1e-6)
    middle = big[:2, :, 12:20, 12:20].mean((2, 3))
    assert bool((middle[:, 0] > 0.3).all()), "a red object is in the middle"
    assert bool((middle[:, 1:] < 0).all()), "a red object is in the middle"


def test_what_is_made_may_be_put_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEWSTEP_TINY_OUT", raising=False)
    assert made("model") == MODEL_DIR
    monkeypatch.setenv("FEWSTEP_TINY_OUT", str(tmp_path))
    assert made("model") == tmp_path / "model"


def test_a_stage_runs_at_a_small_scale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWSTEP_TINY_CACHE", str(tmp_path))
    main(["text", "--scale", "0.0001"])
    assert (tmp_path / "text.pt").exists()
