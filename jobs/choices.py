"""Choices of a request against what model and accelerator allow: each checked by itself."""

from jobs.accelerators import AcceleratorEntry
from jobs.entries import ModelEntry
from jobs.errors import InvalidInput
from jobs.recipe import Dtype, RecipeRequest, Sampler
from jobs.samplers import SAMPLERS

#: Guidance of a sampler without an accelerator.
TEACHER_GUIDANCE_MAX = 20.0


def choose_sampler(
    model: ModelEntry, accelerator: AcceleratorEntry | None, request: RecipeRequest
) -> Sampler:
    """The sampler asked for, or the accelerator's, or the model's; raises InvalidInput."""
    if accelerator is None:
        return request.sampler or model.sampler
    if request.sampler not in (None, accelerator.sampler):
        raise InvalidInput(
            f"this accelerator samples with {accelerator.sampler!r}, not {request.sampler!r}",
            where="sampler",
            remedy="leave the sampler out, or use accelerator 'none'",
        )
    return accelerator.sampler


def choose_steps(
    model: ModelEntry,
    accelerator: AcceleratorEntry | None,
    sampler: Sampler,
    request: RecipeRequest,
) -> int:
    """The steps asked for or the default; raises InvalidInput."""
    low, high = 1, SAMPLERS[sampler].steps_max
    if accelerator:
        low, high = accelerator.steps_min, accelerator.steps_max
    steps = request.steps
    if steps is None:
        return accelerator.steps if accelerator else min(model.steps, high)
    if not low <= steps <= high:
        choice = f"choose {low} to {high}" if low < high else f"it makes pictures in {low} steps"
        raise InvalidInput(
            f"{steps} steps are outside what this recipe allows",
            where="steps",
            remedy=choice
            + ("" if not accelerator else ", or accelerator 'none' for the many-step teacher"),
        )
    return steps


def choose_guidance(
    model: ModelEntry, accelerator: AcceleratorEntry | None, request: RecipeRequest
) -> float:
    """The guidance asked for or the default; raises InvalidInput."""
    low, high = 0.0, TEACHER_GUIDANCE_MAX
    if accelerator:
        low, high = accelerator.guidance_min, accelerator.guidance_max
    guidance = request.guidance
    if guidance is None:
        return accelerator.guidance if accelerator else model.guidance
    if not low <= guidance <= high:
        raise InvalidInput(
            f"guidance {guidance:g} is outside what this recipe allows",
            where="guidance",
            remedy=f"choose {low:g} to {high:g}; "
            "at 1 or below it is off and costs one UNet call a step",
        )
    return guidance


def choose_dtype(model: ModelEntry, allowed: tuple[Dtype, ...], request: RecipeRequest) -> Dtype:
    """The precision asked for or the model's; raises InvalidInput."""
    chosen = request.dtype or model.dtype
    if chosen not in allowed:
        raise InvalidInput(
            f"this model does not work in {chosen}",
            where="dtype",
            remedy=f"choose {' or '.join(allowed)}",
        )
    return chosen


def choose_sizes(model: ModelEntry, request: RecipeRequest) -> tuple[int, int]:
    """Width and height in pixels; raises InvalidInput naming the nearest that will do."""
    return (
        _size("width", model.width if request.width is None else request.width, model),
        _size("height", model.height if request.height is None else request.height, model),
    )


def _size(field: str, value: int, model: ModelEntry) -> int:
    low, high, step = model.size_min, model.size_max, model.size_multiple
    if low <= value <= high and value % step == 0:
        return value
    nearest = min(max((value + step // 2) // step * step, low), high)
    raise InvalidInput(
        f"{value} is not a {field} this model can make",
        where=field,
        remedy=f"a multiple of {step} from {low} to {high}; the nearest is {nearest}",
    )
