"""What a job would cost and where it would run, from what finished jobs measured."""

from collections.abc import Sequence

from jobs.job import Estimate
from jobs.queue_speeds import Speed
from jobs.queue_values import RendererRecord
from jobs.recipe import Recipe
from jobs.shard_queue import ShardQueue
from jobs.timing import Timing

_HOUR_S = 3_600
#: Device-seconds an image that the queue takes for possible.
MAX_COST = 1e6


def estimate_of(
    queue: ShardQueue, recipe: Recipe, images: float, price_of_hour: float | None
) -> Estimate:
    """The estimate for as much as `images` images of a recipe take; raises Unreachable."""
    living = queue.renderers()
    mine = [one for one in living if one.info.get("engine_key") == recipe.engine_key]
    speed = _choose(queue.speeds(recipe.batch_key), mine or living)
    count = max(1, len(mine))
    device_s = _scaled(speed.device_seconds, images, speed) if speed else None
    renderer_s = _scaled(speed.renderer_seconds, images, speed) if speed else None
    return Estimate(
        where=_where(mine, living),
        renderers=count,
        device=speed.device if speed else None,
        measured_images=round(speed.images) if speed else 0,
        device_seconds=device_s,
        seconds=None if renderer_s is None else round(renderer_s / count, 3),
        price=None
        if device_s is None or price_of_hour is None
        else round(device_s / _HOUR_S * price_of_hour, 6),
    )


def measured_cost(queue: ShardQueue, recipe: Recipe) -> float | None:
    """Device-seconds an image of the recipe, as finished jobs measured it on whatever devices.

    None where none did. Raises Unreachable.
    """
    known = queue.speeds(recipe.batch_key)
    images = sum(one.images for one in known)
    cost = sum(one.device_seconds for one in known) / images if images else 0.0
    return min(cost, MAX_COST) if cost > 0 else None


def note_timing(queue: ShardQueue, recipe: Recipe, timing: Timing, *, alike: bool = True) -> None:
    """Count a finished job, and remember how fast it was if its renderers are of one kind.

    Where its rows had settings of their own (not `alike`), it says nothing of the recipe's speed.
    """
    stages = {f"stage:{name}": stage.sum_ms / 1000 for name, stage in timing.stages.items()}
    queue.note_totals({"images:ok": timing.ok, "images:failed": timing.failed, **stages})
    devices = {one.worker: one.info.get("device", "") for one in queue.renderers()}
    kinds = {devices.get(worker, "") for worker in timing.renderers if worker}
    if not alike or len(kinds) != 1 or "" in kinds or not timing.ok:
        return
    measured = Speed(
        kinds.pop(), timing.ok, timing.device_seconds, timing.wall_s * len(timing.renderers)
    )
    queue.note_speed(recipe.batch_key, measured)


def _choose(known: Sequence[Speed], renderers: Sequence[RendererRecord]) -> Speed | None:
    """The speed on a device that is there; else the one that most images measured."""
    here = {one.info.get("device", "") for one in renderers}
    found = [one for one in known if one.device in here] or list(known)
    return max(found, key=lambda one: one.images, default=None)


def _scaled(seconds: float, images: float, speed: Speed) -> float:
    return round(seconds / speed.images * images, 3)


def _where(mine: Sequence[RendererRecord], living: Sequence[RendererRecord]) -> str:
    if mine:
        devices = ", ".join(sorted({one.info.get("device", "?") or "?" for one in mine}))
        noun = "renderer holds" if len(mine) == 1 else "renderers hold"
        return f"{len(mine)} {noun} this engine ({devices})"
    if living:
        return "no renderer holds this engine: one would be started, or take turns with others"
    return "no renderer lives: one would be started"
