"""The measurements' arithmetic, the card's tables, and a training run that stops and resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from workers.metrics import frechet_distance, share
from workers.tiny.captions import VALUES, draw_attributes
from workers.tiny.card import as_markdown, fill_card
from workers.tiny.checkpoints import Run, cosine
from workers.tiny.classifier import FEATURES, Judge, agreement, read
from workers.tiny.scenes import render
from workers.tiny.shipping import swap_folder


def test_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(20000, 2))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(one, one + np.array([3.0, 4.0])) == pytest.approx(25, rel=1e-6)
    wider = frechet_distance(one, one * 3)
    assert wider == pytest.approx(2 * (3 - 1) ** 2, rel=0.05)


def test_frechet_distance_refuses_what_does_not_compare() -> None:
    with pytest.raises(ValueError, match="do not compare"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(np.zeros((1, 2)), np.zeros((4, 2)))


def test_a_share_of_all_still_has_an_error() -> None:
    mean, error = share(np.ones(100, dtype=bool))
    assert mean == 1.0
    assert 0 < error < 0.02
    with pytest.raises(ValueError, match="no values"):
        share(np.zeros(0, dtype=bool))


def test_the_judge_reads_every_attribute() -> None:
    wanted = draw_attributes(np.random.default_rng(1), 6)
    found, features = read(Judge().eval(), render(np.random.default_rng(1), wanted).pictures)
    assert features.shape == (6, FEATURES)
    right = agreement({name: getattr(wanted, name) for name in VALUES}, wanted)
    assert right["all"].all()
    assert set(VALUES) < set(found)


def _row(name: str) -> dict[str, object]:
    row: dict[str, object] = {key: (0.5, 0.05) for key in (*VALUES, "all", "held_out", "hollow")}
    return row | {"name": name, "n": 10, "n_held_out": 4, "distance": 12.34, "ms": 5.0}


def test_the_card_takes_the_tables(tmp_path: Path) -> None:
    result = {"machine": "a machine", "rows": [_row("teacher")], "style": [_row("style")]}
    card, copy = tmp_path / "card.md", tmp_path / "README.md"
    card.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n")
    for _ in range(2):
        fill_card(card, as_markdown(result), copy)
    text = card.read_text()
    assert "| teacher | 50.0 ± 5.0 |" in text
    assert "old" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert copy.exists()


def test_a_folder_is_swapped_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "README.md").write_text("stays")
    (folder / "old.bin").write_text("goes")
    with swap_folder(folder) as fresh:
        (fresh / "part").mkdir()
        (fresh / "part" / "new.bin").write_text("comes")
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"weights/README.md", "weights/part/new.bin"}


def test_the_rate_warms_up_and_falls() -> None:
    rates = [cosine(k / 100) for k in range(101)]
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0.02)


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_TINY_CACHE", str(tmp_path))

    def begin() -> tuple[Run, nn.Linear]:
        net = nn.Linear(2, 1)
        return Run("trial", {"net": net}, torch.optim.SGD(net.parameters(), lr=0.1), 60), net

    run, net = begin()
    for _ in range(3):
        run.update(net(torch.ones(4, 2)).square().mean())
    run.save()
    again, other = begin()
    assert again.step == 3
    assert again.spent_s == run.spent_s
    assert torch.equal(other.weight, net.weight)
    assert torch.equal(again.averages["net"].state["weight"], run.averages["net"].state["weight"])
