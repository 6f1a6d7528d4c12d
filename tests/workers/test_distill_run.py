"""Whole distillations in one process: real architectures, resumed runs, what they leave."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LCMScheduler
from safetensors.torch import load, load_file

from jobs.accelerators import AcceleratorEntry
from jobs.catalog import Catalog, load_catalog
from jobs.distillation import Distillation, DistillRequest, accept
from jobs.errors import Conflict, InvalidInput
from jobs.job import Image
from jobs.places import FolderPlace, StorePlace, place_of, store_of
from jobs.recipe import RecipeRequest
from jobs.rows import Row
from jobs.settings import Settings
from jobs.store import Store
from tests.captioned_tars import picture, write_members, write_scenes
from tests.s3_servers import settings_for
from tests.small_bases import MODULES, SmallBase
from workers.base_model import pipeline_class
from workers.distill_data import cut, draw, split
from workers.distill_report import loss_svg
from workers.distill_run import DistillRun
from workers.engine import load_engine
from workers.lora import WEIGHTS_FILE
from workers.render import BatchRenderer

SHORT: dict[str, Any] = {
    "name": "mine",
    "rank": 4,
    "total_steps": 3,
    "batch": 2,
    "save_every": 1,
    "sample_every": 3,
    "steps": 2,
    "learning_rate": 1e-2,
    "warm_steps": 1,
}


def planned(catalog: Catalog, data: Path, out: Path | str, **fields: Any) -> Distillation:
    request = {**SHORT, "data": (str(data),), "out": str(out), **fields}
    return accept(DistillRequest.model_validate(request), catalog)


def run(plan: Distillation, settings: Settings | None = None) -> dict[str, Any]:
    settings = settings or Settings()
    return DistillRun(plan, place_of(plan.out, settings), settings, lambda _: None).run()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "0.tar", 10)


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_real_architecture_is_distilled_registered_and_loaded_by_diffusers(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    small: SmallBase = request.getfixturevalue(f"small_{name}")
    members = [
        (f"{n}{kind}", data)
        for n in range(4)
        for kind, data in ((".png", picture(48 + n, 40)), (".txt", b"a red circle"))
    ]
    data = write_members(tmp_path / "0.tar", members)
    out = tmp_path / "out"
    before = {key: value.clone() for key, value in small.unet.items()}
    plan = planned(small.catalog, data, out, model="small", total_steps=2)
    result = run(plan)
    assert result["modules"] == MODULES[name]
    assert all(torch.equal(before[key], value) for key, value in small.unet.items())

    entry = tomllib.loads((out / "accelerator.toml").read_text())["accelerators"]["mine"]
    catalog = small.catalog.model_copy(
        update={"accelerators": {"mine": AcceleratorEntry.model_validate(entry)}}
    )
    recipe = catalog.resolve(RecipeRequest(model="small", accelerator="mine", steps=2))
    engine = load_engine(recipe, torch.device("cpu"))
    prompt = Row(prompt="a red circle")
    image = Image(index=0, row_index=0, repeat=0, seed=3, row=prompt)
    ours = BatchRenderer(engine).render(recipe, [image]).images[0].pixels

    pipeline = pipeline_class(recipe.family).from_pretrained(small.folder, dtype=torch.float32)
    pipeline.load_lora_weights(out)
    pipeline.fuse_lora()
    pipeline.scheduler = LCMScheduler.from_config(
        pipeline.scheduler.config, original_inference_steps=50
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt.prompt,
        width=32,
        height=32,
        num_inference_steps=2,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    assert ours is not None
    assert abs((theirs * 255).round() - ours.astype(float)).max() <= 1


def test_sdxl_is_told_pooled_text_and_sizes(small_sdxl: SmallBase, tmp_path: Path) -> None:
    members = [("0.png", picture(96, 64)), ("0.txt", b"a red circle"), ("1.png", picture(32, 32))]
    data = write_members(tmp_path / "0.tar", [*members, ("1.txt", b"a blue star")])
    plan = planned(small_sdxl.catalog, data, tmp_path / "out", model="small")
    made = DistillRun(plan, FolderPlace(tmp_path / "out"), Settings(), lambda _: None)
    batch = made.base.batch(made.pictures, torch.Generator().manual_seed(0))
    assert batch.extra is not None
    assert batch.empty_extra is not None
    added, empty = (one["added_cond_kwargs"] for one in (batch.extra, batch.empty_extra))
    assert added["time_ids"].tolist() == [[64, 96, 0, 8, 32, 32], [32, 32, 0, 0, 32, 32]]
    assert torch.equal(empty["time_ids"], added["time_ids"])
    pipeline = made.base.engine.pipeline
    tokens, _, pooled, _ = pipeline.encode_prompt(
        ["a red circle", "a blue star"], do_classifier_free_guidance=False
    )
    assert torch.allclose(added["text_embeds"], pooled, atol=1e-5)
    assert torch.allclose(batch.states, tokens, atol=1e-5)
    assert not empty["text_embeds"].any()
    assert not batch.empty.any(), "SDXL knows no caption as zeros"


def test_a_run_goes_on_from_its_checkpoint_in_a_store(
    scenes: Path, tmp_path: Path, moto_url: str
) -> None:
    """A run that stops after a checkpoint, by another one in a store, equals an unbroken one."""
    settings = settings_for(moto_url)
    Store.connect(settings, create_bucket=True).close()
    out = f"s3://{settings.s3_bucket}/adapters/mine"
    plan = planned(load_catalog(), scenes, out, ema=0.9)
    place = place_of(out, settings)

    class Killed(Exception):
        """The run's process is no more, right after it saved its second checkpoint."""

    class Dying(StorePlace):
        def write(self, name: str, data: bytes | Path) -> None:
            super().write(name, data)
            if name.endswith("2.pt"):
                raise Killed

    dying = Dying(*store_of(out, settings))
    first = DistillRun(plan, dying, settings, lambda _: None)
    with pytest.raises(Killed):
        first.run()
    assert [one for one in place.names() if one.startswith("check")] == [
        "checkpoints/0000001.pt",
        "checkpoints/0000002.pt",
    ]
    result = run(plan, settings)
    assert result["resumed_from"] == 2
    whole = planned(load_catalog(), scenes, tmp_path / "whole", ema=0.9)
    unbroken = run(whole)
    assert result["loss"] == unbroken["loss"]
    assert result["held_out_loss"] == unbroken["held_out_loss"]
    whole_file = load_file(tmp_path / "whole" / WEIGHTS_FILE)
    resumed = load(place.read(WEIGHTS_FILE) or b"")
    assert len(whole_file) > 100
    assert all(torch.equal(whole_file[key], value) for key, value in resumed.items())
    entry = (place.read("accelerator.toml") or b"").decode()
    assert f'source = "{out}"' in entry
    assert (place.read("loss.svg") or b"").startswith(b"<svg")


@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "bfloat16", "loss": "l2", "gradient_checkpointing": True},
        {"targets": ("to_q", "to_k"), "alpha": 8, "w_fall": 0.5},
    ],
)
def test_other_settings_train_too(scenes: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    plan = planned(load_catalog(), scenes, tmp_path, total_steps=1, **fields)
    result = run(plan)
    assert 0 < result["loss"] < 10
    if "targets" in fields:
        assert result["modules"] == 2 * 12


def test_steps_walk_through_all_pictures_on_all_processes() -> None:
    rows, held = split(11, 0.1, seed=3)
    assert sorted(rows + held) == list(range(11))
    assert len(held) == 1
    taken = [
        row for step in range(5) for rank in range(2) for row in draw(rows, 3, step, (rank, 2), 2)
    ]
    assert sorted(taken[:10]) == rows
    assert sorted(taken[10:]) == rows
    assert taken[:10] != taken[10:]
    with pytest.raises(InvalidInput, match="too few"):
        split(1, 0.1, seed=3)


def test_a_picture_is_covered_and_cut_in_the_middle(tmp_path: Path) -> None:
    from jobs.captioned import captioned

    tar = write_members(tmp_path / "0.tar", [("0.png", picture(64, 32)), ("0.txt", b"x")])
    (one,) = captioned([str(tar)], 16, 16, Settings()).pictures
    seen = cut(one, 16, 16)
    assert seen.sizes == (32, 64, 0, 8, 16, 16)
    assert seen.pixels.shape == (3, 16, 16)
    assert -1 <= float(seen.pixels.min()) < float(seen.pixels.max()) <= 1


def test_the_curve_of_the_loss_shows_every_step() -> None:
    drawn = loss_svg([1.0, 0.1, 0.01], [(0, 1.0), (3, 0.02)])
    assert drawn.count("<circle") == 2
    assert drawn.count("<polyline") == 2
    first = drawn.partition('points="')[2].partition('"')[0].split()
    heights = [float(point.split(",")[1]) for point in first]
    assert heights == sorted(heights), "the loss falls, so y grows"
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


BAD = {
    "name": ({"name": "lcm-tiny"}, Conflict, "already"),
    "base": ({"model": "no-such"}, InvalidInput, "no model"),
    "size": ({"width": 65}, InvalidInput, "width"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plan_is_refused(case: str, scenes: Path, tmp_path: Path) -> None:
    fields, kind, says = BAD[case]
    with pytest.raises(kind, match=says):
        planned(load_catalog(), scenes, tmp_path, **fields)
