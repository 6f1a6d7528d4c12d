"""Nets in float32 for one picture: whatever happens meanwhile, the next batch finds its own."""

from typing import Any

import pytest
import torch

from jobs.catalog import Catalog
from jobs.recipe import RecipeRequest
from tests.workers.test_mending import made, mending, unet_gives
from tests.workers.test_render import images
from workers.device_faults import DeviceLost
from workers.engine import load_engine
from workers.rendered import Rendered


@pytest.mark.parametrize("net", ["unet", "vae"])
def test_no_memory_for_float32_leaves_the_net_as_it_was(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, net: str
) -> None:
    """Memory runs out after the first parameters: the picture fails, and no later batch does."""
    recipe = catalog.resolve(RecipeRequest(dtype="bfloat16", steps=1))
    engine = load_engine(recipe, torch.device("cpu"))
    renderer, asked = mending(engine), images(2)
    whole, moved = made(renderer, recipe, asked), getattr(engine, net)
    to = moved.to

    def half_way(dtype: torch.dtype) -> Any:
        if dtype == torch.float32:
            next(moved.children()).to(dtype)
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        return to(dtype)

    def broken(prediction: torch.Tensor) -> torch.Tensor:
        prediction[0] = float("nan")
        return prediction

    monkeypatch.setattr(moved, "to", half_way)
    with unet_gives(engine, broken):
        found = made(renderer, recipe, asked)
    assert [one.kind for one in found] == ["nan", ""]
    assert {one.dtype for one in moved.parameters()} == {torch.bfloat16}
    assert pixels(made(renderer, recipe, asked)) == pixels(whole)


def test_a_net_that_does_not_come_back_from_float32_is_given_up(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = catalog.resolve(RecipeRequest(dtype="bfloat16", steps=1))
    engine = load_engine(recipe, torch.device("cpu"))
    to = engine.vae.to

    def one_way(dtype: torch.dtype) -> Any:
        if dtype != torch.float32:
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        return to(dtype)

    def broken(prediction: torch.Tensor) -> torch.Tensor:
        prediction[0] = float("nan")
        return prediction

    monkeypatch.setattr(engine.vae, "to", one_way)
    with unet_gives(engine, broken), pytest.raises(DeviceLost, match="did not go back"):
        made(mending(engine), recipe, images(2))


def pixels(found: list[Rendered]) -> list[bytes]:
    return [one.pixels.tobytes() for one in found if one.pixels is not None]
