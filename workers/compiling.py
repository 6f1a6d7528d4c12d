"""Nets that torch.compile has translated: every shape before its first picture, or none at all."""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch

from jobs.job import Image
from jobs.recipe import Recipe
from jobs.rows import Row
from workers.depot import Depot
from workers.device_faults import is_out_of_memory, is_sticky
from workers.engine import Engine
from workers.render import Batch, BatchRenderer, Nets, Precision

log = logging.getLogger(__name__)

#: Net -> the compiled net.
Compiler = Callable[[Any], Any]
#: Told "compiling" when it begins, and "" when it is over.
Say = Callable[[str], None]

#: While a shape compiles, work counts as moving: so often, and for so long at most.
TICK_S = 5.0
COMPILE_S = 1800.0
#: Shapes of one net. More would be an error, never a net that is not compiled.
SHAPES_MAX = 256


class CompiledRenderer(BatchRenderer):
    """Renders with compiled nets alone; what is rendered again in float32 uses the engine's own.

    A shape is compiled by a batch of dummies before its first picture. One that cannot be compiled
    raises RuntimeError from then on: pictures of eager nets may differ in last bits.
    """

    def __init__(
        self,
        engine: Engine,
        compiler: Compiler,
        moved: Callable[[], None] = lambda: None,
        say: Say = lambda _: None,
    ) -> None:
        super().__init__(engine, moved, Nets(compiler(engine.unet), compiler(engine.vae.decode)))
        self._say = say
        self._ready: set[tuple[str, int]] = set()
        self._failed: dict[tuple[str, int], str] = {}

    def render(
        self, recipe: Recipe, images: Sequence[Image], precision: Precision = "own"
    ) -> Batch:
        """As `BatchRenderer.render`; the first batch of a shape waits until it is compiled."""
        self.prepare(recipe)
        return super().render(recipe, images, precision)

    def prepare(self, recipe: Recipe) -> None:
        """Compile the shapes of this recipe, once; raises what torch raises where that fails."""
        key = (recipe.batch_key, recipe.batch_images)
        if key in self._ready:
            return
        if key in self._failed:
            raise RuntimeError(self._failed[key])
        self._say("compiling")
        try:
            with _moving(self._moved):
                # A whole batch: the strides of its first step and of the others may differ.
                _ = super().render(recipe, [_DUMMY]).images
        except RuntimeError as error:
            if not is_out_of_memory(error) and not is_sticky(error):
                self._failed[key] = f"its shape cannot be compiled: {error}"[:500]
            raise
        finally:
            self._say("")
        self._ready.add(key)


def compiled_renderer(
    engine: Engine,
    compiler: Compiler,
    recipe: Recipe,
    moved: Callable[[], None] = lambda: None,
    say: Say = lambda _: None,
) -> CompiledRenderer | None:
    """A renderer that is ready for `recipe`; None, with a warning, where compiling does not work.

    Decided here, before the first picture, and never later.
    """
    renderer = None
    try:
        renderer = CompiledRenderer(engine, compiler, moved, say)
        renderer.prepare(recipe)
    except (RuntimeError, OSError, ImportError) as error:
        if isinstance(error, RuntimeError) and is_sticky(error):
            raise
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            # The first batch finds the shape that fits, and compiles it.
            return renderer
        # Its pictures come from eager nets.
        log.warning("compile_failed model=%s error=%s", recipe.model, error)
        return None
    return renderer


def compiler(mode: Literal["warm", "max"], device: torch.device, threads: int = 1) -> Compiler:
    """torch.compile with inductor: fixed shapes, whole graphs, at most `threads` at a time.

    `max` lets kernels compete for time; on a GPU each net is a CUDA graph as well.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    if dynamo.disable or os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        # torch.compile would hand the net back as it is, and the rows would say that it compiled.
        return _switched_off
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = SHAPES_MAX
    inductor.compile_threads = threads
    if mode == "warm":
        return partial(torch.compile, fullgraph=True, dynamic=False)
    graphs = device.type == "cuda"
    chosen = "max-autotune" if graphs else "max-autotune-no-cudagraphs"
    whole = partial(torch.compile, fullgraph=True, dynamic=False, mode=chosen)
    return (lambda net: _keeping(whole(net))) if graphs else whole


def keep_artefacts(depot: Depot, device: str) -> None:
    """Let inductor keep what it makes in the node's cache, by torch's version and device.

    Its own keys are made of the graph: engines of one architecture share an artefact. Call it
    before anything is compiled. Without a cache folder it is inductor's business.
    """
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"torch-{torch.__version__}-{device}").strip("-")
    entry = depot.entry("compiled", name)
    if entry is None:
        return
    try:
        entry.mkdir(parents=True, exist_ok=True)
        depot.touch(entry)
    except OSError as error:
        log.warning("cache_not_written entry=%s error=%s", entry, error)
        return
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(entry)
    os.environ["TRITON_CACHE_DIR"] = str(entry / "triton")


def _switched_off(net: Any) -> Any:
    raise RuntimeError("torch.compile is switched off: TORCH_COMPILE_DISABLE=1 is set")


def _keeping(net: Any) -> Callable[..., tuple[torch.Tensor]]:
    """`net` with a result of its own: a CUDA graph writes its next one to the same place."""

    def call(*given: Any, **named: Any) -> tuple[torch.Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        return (net(*given, **named)[0].clone(),)

    return call


@contextmanager
def _moving(moved: Callable[[], None]) -> Iterator[None]:
    """While inside, `moved` is called from another thread: a compiler makes no steps to tell."""
    over = threading.Event()

    def tick() -> None:
        for _ in range(round(COMPILE_S / TICK_S)):
            if over.wait(TICK_S):
                return
            moved()

    thread = threading.Thread(target=tick, name="compiling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


_DUMMY = Image(index=0, row_index=0, repeat=0, seed=0, row=Row(prompt=""))
