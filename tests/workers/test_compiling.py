"""Compiled nets: one kind of picture from the first to the last, and every row says which."""

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.catalog import Catalog
from jobs.recipe import Recipe, RecipeRequest
from jobs.settings import Settings
from tests.workers.test_render import images
from workers import compiling, loading
from workers.compiling import CompiledRenderer, compiled_renderer, compiler, keep_artefacts
from workers.depot import SHELVES, Depot
from workers.engine import Engine
from workers.leases import LeaseKeeper
from workers.mending import MendingRenderer
from workers.render import BatchRenderer
from workers.shapes import BatchShapes


class Stand:
    """Stands in for torch.compile: the net itself, with its calls counted by name."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __call__(self, net: Any) -> Callable[..., Any]:
        name = "unet" if isinstance(net, torch.nn.Module) else "decode"

        def call(*given: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return net(*given, **named)

        return call


@pytest.fixture
def recipe(catalog: Catalog) -> Recipe:
    return catalog.resolve(RecipeRequest(width=32, height=32, steps=2))


def pixels(renderer: BatchRenderer, recipe: Recipe, count: int = 3) -> list[np.ndarray]:
    found = [one.pixels for one in renderer.render(recipe, images(count)).images]
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


def test_every_call_goes_through_the_compiled_nets(engine: Engine, recipe: Recipe) -> None:
    """One batch of dummies before a shape's first picture; then each batch, and nothing else."""
    stand, said = Stand(), list[str]()
    renderer = compiled_renderer(engine, stand, recipe, say=said.append)
    assert renderer is not None
    assert stand.calls == {"unet": 2, "decode": 1}
    assert said == ["compiling", ""]
    for _ in range(2):
        pixels(renderer, recipe)
    assert stand.calls == {"unet": 6, "decode": 3}
    other = recipe.model_copy(update={"batch_images": 4})
    pixels(renderer, other)
    assert stand.calls == {"unet": 10, "decode": 5}
    assert said == ["compiling", ""] * 2


def test_what_is_made_again_in_float32_uses_the_engine_s_own_nets(
    engine: Engine, recipe: Recipe
) -> None:
    stand = Stand()
    renderer = CompiledRenderer(engine, stand)
    renderer.prepare(recipe)
    before = stand.calls.copy()
    assert renderer.render(recipe, images(1), "exact").images[0].pixels is not None
    assert stand.calls == before


def test_no_shape_is_compiled_once_its_pictures_have_begun(engine: Engine, recipe: Recipe) -> None:
    """torch.compile itself, with a backend that counts what it is given to compile."""
    graphs: list[int] = []

    def counting(graph: Any, _: Any) -> Any:
        graphs.append(1)
        return graph.forward

    compiles = partial(torch.compile, backend=counting, fullgraph=True, dynamic=False)
    renderer = compiled_renderer(engine, compiles, recipe)
    assert renderer is not None
    known = len(graphs)
    assert known >= 2
    made = [*pixels(renderer, recipe, 3), *pixels(renderer, recipe, 5)]
    assert len(graphs) == known
    own = BatchRenderer(engine)
    for one, other in zip(made, [*pixels(own, recipe, 3), *pixels(own, recipe, 5)], strict=True):
        assert np.array_equal(one, other)


def broken(net: Any) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        raise RuntimeError("no working C++ compiler was found (made up)")

    return call


@pytest.mark.parametrize(("compiles", "says"), [(Stand(), "warm"), (broken, "off")])
def test_rows_say_what_made_them(
    compiles: compiling.Compiler,
    says: str,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A renderer that cannot compile goes on with eager nets, and its rows say `off`."""
    monkeypatch.setattr(compiling, "compiler", lambda *_: compiles)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    monkeypatch.setenv("FEWSTEP_COMPILE", "warm")
    settings = Settings(home=tmp_path, cache=tmp_path / "cache")
    said = list[str]()
    keeper = LeaseKeeper(None, "w", 60_000, 15_000, dict)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "workers.compiling"):
        parts = loading.load_parts(recipe.model_dump_json(), settings, keeper, said.append)
    assert parts.maker("w").compiled == says
    assert parts.load_times.compile_ms > 0
    assert said == ["compiling", ""]
    assert ("no working C++ compiler" in caplog.text) == (says == "off")
    found = parts.renderer.finish(parts.renderer.start(recipe, images(2)))
    assert [one.error for one in found] == ["", ""]


def test_a_compiler_that_is_switched_off_is_not_said_to_have_compiled(
    engine: Engine,
    recipe: Recipe,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Not by monkeypatch: the configuration hides for good what was once taken back.
    switched_off = torch._dynamo.config.patch(disable=True)
    with switched_off, caplog.at_level(logging.WARNING, "workers.compiling"):
        assert compiled_renderer(engine, compiler("warm", engine.device), recipe) is None
    assert "TORCH_COMPILE_DISABLE=1" in caplog.text


def test_a_later_shape_that_cannot_be_compiled_fails_its_images_and_is_tried_once(
    engine: Engine, recipe: Recipe
) -> None:
    """Eager pictures under rows that say `warm` would be a lie."""
    tries: list[int] = []

    def picky(net: Any) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if len(given[0]) == 4:
                tries.append(1)
                raise RuntimeError("no code for this shape (made up)")
            return net(*given, **named)

        return call

    batches = compiled_renderer(engine, picky, recipe)
    assert batches is not None
    renderer = MendingRenderer(batches, BatchShapes("a device"))
    other = recipe.model_copy(update={"batch_images": 4})
    for _ in range(2):
        found = renderer.finish(renderer.start(other, images(2)))
        assert all("cannot be compiled: no code for this shape" in one.error for one in found)
        assert [one.pixels for one in found] == [None, None]
    assert len(tries) == 1
    assert len(pixels(batches, recipe)) == 3


def test_a_long_compilation_counts_as_moving(
    engine: Engine, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog hears of it from another thread while the device's own is in the compiler."""
    monkeypatch.setattr(compiling, "TICK_S", 0.01)
    ticked = threading.Event()

    def moved() -> None:
        if threading.current_thread().name == "compiling":
            ticked.set()

    def slow(net: Any) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            assert ticked.wait(60), "no sign of life"
            return net(*given, **named)

        return call

    assert compiled_renderer(engine, slow, recipe, moved) is not None


def test_artefacts_lie_in_the_node_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    keep_artefacts(Depot(tmp_path, 10**9), "AMD EPYC 9V45")
    (entry,) = (tmp_path / "compiled").iterdir()
    assert cache_dir() == str(entry)
    assert entry.name.startswith(f"torch-{torch.__version__.split('+')[0]}")
    assert entry.name.endswith("-AMD-EPYC-9V45")
    assert entry.parent.name in SHELVES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")
def test_inductor_s_pictures_are_near_and_a_second_renderer_compiles_from_the_cache(
    engine: Engine, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    keep_artefacts(Depot(tmp_path, 10**9), "cpu")
    hits: list[int] = []
    for _ in range(2):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        renderer = compiled_renderer(engine, compiler("warm", engine.device), recipe)
        assert renderer is not None
        hits.append(torch._dynamo.utils.counters["inductor"]["fxgraph_cache_hit"])
        pairs = zip(pixels(renderer, recipe), pixels(BatchRenderer(engine), recipe), strict=True)
        apart = max(int(np.abs(np.int16(a) - np.int16(b)).max()) for a, b in pairs)
        assert apart <= 2
    assert hits[0] == 0
    assert hits[1] >= 2
