"""What a renderer's process loads at its start: engine, encoders, and who it is.

torch and diffusers are imported inside: the scheduler imports the actor and must not pay for them.
"""

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

from jobs.errors import NoCapacity
from jobs.recipe import Recipe
from jobs.records import LoadTimes, Maker
from jobs.settings import Settings
from workers.depot import Depot
from workers.work import RendersBatches

#: What a process holds of a GPU beside its tensors.
CONTEXT_BYTES = 1 << 30
#: Encoder threads beside a GPU: one cannot keep up with it.
GPU_ENCODERS = 8


class Watcher(Protocol):
    """Whoever waits for signs that the device does not hang."""

    def moved(self) -> None:
        """It does not."""


@dataclass(frozen=True)
class Parts:
    """A loaded engine behind the face that the shard loop knows."""

    renderer: RendersBatches
    device: str
    model_sha256: str
    accelerator_sha256: str
    styles: tuple[str, ...]
    #: How its nets are compiled: `off`, `warm` or `max`.
    compiled: str = "off"
    #: Bytes of its GPU; 0 on a CPU.
    device_memory: int = 0

    @property
    def load_times(self) -> LoadTimes:
        """How long each stage took until now."""
        return self.renderer.load_times

    def maker(self, worker: str) -> Maker:
        """Who makes the pictures, for every record."""
        return Maker(
            worker=worker,
            device=self.device,
            torch=metadata.version("torch"),
            diffusers=metadata.version("diffusers"),
            fewstep=metadata.version("fewstep"),
            model_sha256=self.model_sha256,
            accelerator_sha256=self.accelerator_sha256,
            styles=self.styles,
            compiled=self.compiled,
        )


def load_parts(
    recipe_json: str,
    settings: Settings,
    keeper: Watcher,
    say: Callable[[str], None] = lambda _: None,
) -> Parts:
    """Load the engine of a recipe; raises what `load_engine` raises, or NoCapacity.

    `say` is told "compiling" while nets are compiled, now or for a shape that comes later, and ""
    when that is over.
    """
    from workers.engine import load_engine, pick_device
    from workers.mending import MendingRenderer, remedies
    from workers.shapes import BatchShapes

    recipe = Recipe.model_validate_json(recipe_json)
    _hide_devices()
    device = pick_device(settings.threads)
    _check_device(device.type)
    device_memory = _keep_to_share(device.type)
    engine = load_engine(recipe, device, Depot.of(settings))
    on_gpu, name = device.type == "cuda", _device_name(device.type)
    encoders = settings.threads
    if on_gpu:
        encoders = max(encoders, min(GPU_ENCODERS, os.cpu_count() or 1))
    share = assigned_share()
    # What fits in a part of a device says nothing of the whole.
    part = f"{name}, {share:.2f} of it" if 0 < share < 1 else name
    shapes = BatchShapes(part, settings.home / "batch-shapes")
    begun = time.perf_counter()
    batches, compiled = _batches(engine, shapes.shaped(recipe), settings, keeper.moved, say)
    times = engine.load_times
    if settings.compile != "off":
        passed = (time.perf_counter() - begun) * 1e3
        times = times.model_copy(update={"compile_ms": passed})
    return Parts(
        renderer=MendingRenderer(
            batches,
            shapes,
            remedies(engine.vae.dtype, engine.dtype),
            encoders,
            times.total_ms,
            load_times=times,
            ahead=1 if on_gpu else 0,
        ),
        device=name,
        model_sha256=engine.model_sha256,
        accelerator_sha256=engine.accelerator_sha256,
        styles=engine.styles,
        compiled=compiled,
        device_memory=device_memory,
    )


def drop_engine(settings: Settings) -> None:
    """Give back what the engine before held, once nobody refers to it: nets, graphs, device memory.

    How much memory was held at most is counted anew on a GPU, for the engine that comes.
    """
    import torch

    if settings.compile != "off":
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _batches(
    engine: Any,
    recipe: Recipe,
    settings: Settings,
    moved: Callable[[], None],
    say: Callable[[str], None],
) -> tuple[Any, str]:
    """The renderer of batches, ready for the recipe's own, and how its nets are compiled."""
    from workers.compiling import compiled_renderer, compiler, keep_artefacts
    from workers.render import BatchRenderer

    if settings.compile != "off":
        keep_artefacts(Depot.of(settings), _device_name(engine.device.type))
        compiles = compiler(settings.compile, engine.device, settings.threads)
        renderer = compiled_renderer(engine, compiles, recipe, moved, say)
        if renderer is not None:
            return renderer, settings.compile
    return BatchRenderer(engine, moved), "off"


def _check_device(kind: str) -> None:
    """A renderer that was given a GPU must not make other pictures, slowly, on the CPU."""
    import ray

    given: dict[str, Any] = (
        ray.get_runtime_context().get_accelerator_ids() if ray.is_initialized() else {}
    )
    if given.get("GPU") and kind != "cuda":
        raise NoCapacity(
            f"GPU {', '.join(given['GPU'])} was assigned, and torch cannot use it",
            remedy="check the driver, and that torch was installed with CUDA",
        )


def _hide_devices() -> None:
    """A renderer that was given no GPU sees none of its machine's: Ray leaves that to us."""
    if _in_actor() and not assigned_share():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _in_actor() -> bool:
    import ray

    return ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def ray_node() -> str:
    """The name by which Ray knows this process's node; "" where it runs without Ray."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def assigned_share() -> float:
    """How much of a GPU Ray gave this process; 0 without Ray or a GPU, and in no actor or task."""
    import ray

    if not _in_actor():
        return 0.0
    return float(ray.get_runtime_context().get_assigned_resources().get("GPU", 0))


def _keep_to_share(kind: str) -> int:
    """Take no more of the GPU than was given, so that neighbours keep theirs; bytes of it all."""
    if kind != "cuda":
        return 0
    import torch

    total, share = torch.cuda.get_device_properties(0).total_memory, assigned_share()
    if 0 < share < 1:
        # What the driver holds of it for this process is not torch's to count.
        torch.cuda.set_per_process_memory_fraction(max(0.01, share - CONTEXT_BYTES / total))
    return int(total)


def _device_name(kind: str) -> str:
    if kind == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "cpu"
