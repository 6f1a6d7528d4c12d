"""A device that misbehaves: what it costs, and that it costs nobody else's pixels."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.catalog import Catalog
from jobs.job import Image
from jobs.recipe import Recipe, RecipeRequest
from tests.workers.test_render import images
from workers.device_faults import DeviceLost, no_room
from workers.engine import Engine, load_engine
from workers.mending import MendingRenderer, remedies
from workers.render import BatchRenderer
from workers.rendered import Rendered
from workers.shapes import BatchShapes

Hook = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture
def recipe(catalog: Catalog) -> Recipe:
    return catalog.resolve(RecipeRequest(steps=1))


def mending(engine: Engine, folder: Path | None = None) -> MendingRenderer:
    fixes = remedies(engine.vae.dtype, engine.dtype)
    return MendingRenderer(BatchRenderer(engine), BatchShapes("a device", folder), fixes)


def made(renderer: MendingRenderer, recipe: Recipe, asked: list[Image]) -> list[Rendered]:
    return renderer.finish(renderer.start(recipe, asked))


@contextmanager
def unet_gives(engine: Engine, change: Hook) -> Iterator[None]:
    """What the UNet says goes through `change`, which may raise."""

    def hook(_: Any, arguments: Any, output: Any) -> Any:
        return (change(output[0]),)

    handle = engine.unet.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def no_more_than(limit: int) -> Hook:
    def change(prediction: torch.Tensor) -> torch.Tensor:
        if len(prediction) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB (made up)")
        return prediction

    return change


def test_out_of_memory_halves_the_batch_and_remembers_it(
    engine: Engine, recipe: Recipe, tmp_path: Path
) -> None:
    asked, renderer = images(16), mending(engine, tmp_path)
    with unet_gives(engine, no_more_than(6)):
        first = made(renderer, recipe, asked)
        assert renderer.room(recipe) == 4
        second = made(renderer, recipe, asked[:4])
    assert [one.batch_images for one in first] == [4] * 16
    assert [one.position for one in first] == [0, 1, 2, 3] * 4
    # From then on in this shape, also where there is room, and in the next process.
    third = made(mending(engine, tmp_path), recipe, asked[:4])
    for one, other, later in zip(first[:4], second, third, strict=True):
        assert one.pixels is not None
        assert other.pixels is not None
        assert later.pixels is not None
        assert one.pixels.tobytes() == other.pixels.tobytes() == later.pixels.tobytes()
    assert mending(engine, tmp_path).room(recipe) == 4
    assert mending(engine).room(recipe) == 16


def test_a_moment_without_memory_keeps_the_shape(engine: Engine, recipe: Recipe) -> None:
    raised: list[int] = []

    def once(prediction: torch.Tensor) -> torch.Tensor:
        if not raised:
            raised.append(1)
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory (made up)"
            )
        return prediction

    renderer = mending(engine)
    with unet_gives(engine, once):
        found = made(renderer, recipe, images(3))
    assert [one.batch_images for one in found] == [16] * 3
    assert [one.error for one in found] == [""] * 3


@pytest.mark.parametrize("says", ["CUDA out of memory (made up)", "something else (made up)"])
def test_what_a_failed_batch_held_is_free_when_it_is_tried_again(
    engine: Engine, recipe: Recipe, says: str
) -> None:
    """Else the room that was short is short once more, and the shape is lowered for nothing."""
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def twice(prediction: torch.Tensor) -> torch.Tensor:
        alive.extend(one() is not None for one in held)
        # As an activation that the net holds while it fails.
        activation = prediction.clone()
        held.append(weakref.ref(activation))
        if len(held) < 3:
            raise RuntimeError(says)
        return prediction

    with unet_gives(engine, twice):
        made(mending(engine), recipe, images(3))
    assert alive
    assert not any(alive)


def test_a_device_without_room_for_one_image_is_given_up(engine: Engine, recipe: Recipe) -> None:
    with unet_gives(engine, no_more_than(0)), pytest.raises(DeviceLost, match="does not fit"):
        made(mending(engine), recipe, images(2))


def test_a_shape_file_that_does_not_read_is_no_trouble(
    engine: Engine, recipe: Recipe, tmp_path: Path
) -> None:
    with unet_gives(engine, no_more_than(8)):
        made(mending(engine, tmp_path), recipe, images(9))
    (file,) = tmp_path.iterdir()
    assert file.read_text() == "8"
    file.write_text("many")
    assert mending(engine, tmp_path).room(recipe) == 16


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "nan"), (float("inf"), "nan")])
def test_a_picture_that_stays_broken_fails_alone(
    engine: Engine, recipe: Recipe, value: float, kind: str
) -> None:
    """The poisoned image is tried again alone and fails with its kind; the rest keep their bits."""
    asked, renderer = images(4), mending(engine)
    whole = made(renderer, recipe, asked)

    def poison(prediction: torch.Tensor) -> torch.Tensor:
        prediction[_place_of(asked[2], current)] = value
        return prediction

    current: list[Image] = []
    watched = _watched(renderer, current)
    with unet_gives(engine, poison):
        found = made(watched, recipe, asked)
    assert [one.kind for one in found] == ["", "", kind, ""]
    assert found[2].pixels is None
    assert found[2].tries == 2
    assert "2 times" in found[2].error
    for old, new in zip(whole, found, strict=True):
        if new.pixels is not None and old.pixels is not None:
            assert new.pixels.tobytes() == old.pixels.tobytes()


def test_a_fault_of_the_moment_is_mended_by_the_same_seed(engine: Engine, recipe: Recipe) -> None:
    """Once NaN, then not: the picture that comes is the one that would have come."""
    asked, renderer = images(4), mending(engine)
    whole, poisoned = made(renderer, recipe, asked), []

    def once(prediction: torch.Tensor) -> torch.Tensor:
        if not poisoned:
            poisoned.append(1)
            prediction[1] = float("nan")
        return prediction

    with unet_gives(engine, once):
        found = made(renderer, recipe, asked)
    assert [one.tries for one in found] == [1, 2, 1, 1]
    assert _bytes(found) == _bytes(whole)


def test_a_flat_picture_is_no_picture(
    engine: Engine, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine.vae.decode

    def grey(latents: torch.Tensor, **rest: Any) -> Any:
        decoded = whole(latents, **rest)
        decoded[0][0] = 0.25
        return decoded

    monkeypatch.setattr(engine.vae, "decode", grey)
    found = made(mending(engine), recipe, images(3))
    assert [one.kind for one in found] == ["flat", "", ""]
    assert found[0].tries == 2


def test_in_half_precision_the_decoder_goes_first_then_the_unet(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overflow costs its own image a decoding in float32, and the neighbours nothing."""
    recipe = catalog.resolve(RecipeRequest(dtype="bfloat16", steps=1))
    engine = load_engine(recipe, torch.device("cpu"))
    renderer, asked = mending(engine), images(3)
    whole, decode, broken = made(renderer, recipe, asked), engine.vae.decode, {1}

    def overflowing(latents: torch.Tensor, **rest: Any) -> Any:
        decoded = decode(latents, **rest)
        if latents.dtype != torch.float32:
            for place in broken:
                decoded[0][place] = float("inf")
        return decoded

    monkeypatch.setattr(engine.vae, "decode", overflowing)
    by_decoder = made(renderer, recipe, asked)
    assert [one.tries for one in by_decoder] == [1, 2, 1]
    assert [one.error for one in by_decoder] == [""] * 3
    for place, (old, new) in enumerate(zip(whole, by_decoder, strict=True)):
        assert old.pixels is not None
        assert new.pixels is not None
        near = np.abs(old.pixels.astype(int) - new.pixels.astype(int)).max()
        assert near == 0 if place != 1 else near < 40
    monkeypatch.undo()

    def lower(prediction: torch.Tensor) -> torch.Tensor:
        if prediction.dtype != torch.float32:
            prediction[0] = float("nan")
        return prediction

    with unet_gives(engine, lower):
        by_unet = made(renderer, recipe, asked)
    assert [one.tries for one in by_unet] == [3, 1, 1]
    assert [one.error for one in by_unet] == [""] * 3
    # Nothing of float32 is left behind: the next batch is what the first was.
    assert _bytes(made(renderer, recipe, asked)) == _bytes(whole)


def test_a_batch_that_raises_is_rendered_image_by_image(engine: Engine, recipe: Recipe) -> None:
    asked, current = images(4), []
    watched = _watched(mending(engine), current)

    def picky(prediction: torch.Tensor) -> torch.Tensor:
        if asked[1] in current:
            raise RuntimeError("no kernel for this one (made up)")
        return prediction

    with unet_gives(engine, picky):
        found = made(watched, recipe, asked)
    assert [one.kind for one in found] == ["", "device", "", ""]
    assert "no kernel" in found[1].error
    assert "RuntimeError" in found[1].traceback


def test_a_broken_context_is_given_up(engine: Engine, recipe: Recipe) -> None:
    def assertion(prediction: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered (made up)")

    with unet_gives(engine, assertion), pytest.raises(DeviceLost, match="device-side assert"):
        made(mending(engine), recipe, images(2))


def test_drawing_ahead_is_given_up_only_with_the_device(
    engine: Engine, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer, errors = mending(engine), ["CUDA error: made up", "out of memory (made up)"]

    def fails(*_: Any) -> None:
        raise RuntimeError(errors.pop())

    monkeypatch.setattr(renderer.batches, "draw_ahead", fails)
    renderer.draw_ahead(recipe, images(2))
    with pytest.raises(DeviceLost, match="CUDA error"):
        renderer.draw_ahead(recipe, images(2))


def test_a_context_that_broke_before_its_cache_was_emptied_is_given_up(
    engine: Engine, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broke() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered (made up)")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", broke)
    renderer = mending(engine)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (made up)")

    monkeypatch.setattr(renderer.batches, "render", full)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        made(renderer, recipe, images(2))


def _watched(renderer: MendingRenderer, current: list[Image]) -> MendingRenderer:
    """`current` holds the images of the batch that is on the device."""
    render = renderer.batches.render

    def noted(recipe: Recipe, asked: Any, *rest: Any) -> Any:
        current[:] = asked
        return render(recipe, asked, *rest)

    renderer.batches.render = noted  # type: ignore[method-assign]
    return renderer


def _place_of(image: Image, current: list[Image]) -> int:
    """Its place, or the last one, which only padding has."""
    return current.index(image) if image in current else -1


def _bytes(found: list[Rendered]) -> list[bytes]:
    return [one.pixels.tobytes() for one in found if one.pixels is not None]


def test_a_folder_for_temporary_files_that_is_gone_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renderer says so and claims nothing; it does not end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert no_room() == f"{tmp_path / 'gone'} cannot be used: No such file or directory"
